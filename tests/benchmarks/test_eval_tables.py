"""Tables from metrics.json, and the card they go into."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from eval_tables import END, START, draw_tables, fill_card, read_metrics

from ovsam_cli.errors import InputError

ESTIMATE = {"mean": 0.5, "low": 0.4, "high": 0.625, "num_instances": 9}


def write_metrics(path: Path, **protocol: object) -> str:
    content = {
        "command": "prompted",
        "protocol": {"prompt": "box", "baseline": "none", "fusion": "auto", "accuracies": []}
        | protocol,
        "data": {"num_images": 3, "num_instances": 9},
        "estimates": dict.fromkeys(["iou|all", "iou|small", "top1 2 names|all"], ESTIMATE),
        "calibration": {"expected_error": 0.125},
    }
    path.write_text(json.dumps(content))
    return f"scenes={path}"


def test_tables_and_card(tmp_path: Path) -> None:
    specs = [
        write_metrics(tmp_path / "a.json", accuracies=["2 names"]),
        write_metrics(tmp_path / "b.json", baseline="ellipse"),
    ]
    tables = draw_tables([read_metrics(spec) for spec in specs])
    assert tables.splitlines()[2:4] == [
        "| scenes: 3 images, 9 objects | box | .500 | - | - | **.500** [.400, .625] |  |",
        "|  | (ellipse in the box) | .500 | - | - | **.500** [.400, .625] |  |",
    ]
    assert tables.splitlines()[-1].endswith("| box | 2 names | **.500** [.400, .625] |  | .125 |")
    card = tmp_path / "card.md"
    card.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    fill_card(card, tables)
    assert card.read_text() == f"before\n{START}\n\n{tables}\n\n{END}\nafter\n"


def test_other_files_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "m.json"
    other.write_text('{"command": "grid"}')
    with pytest.raises(InputError, match="of `ovsam eval grid`"):
        read_metrics(f"x={other}")
    with pytest.raises(InputError, match="expected NAME=metrics"):
        read_metrics("nothing")
    with pytest.raises(InputError, match="each once"):
        fill_card(other, "")
