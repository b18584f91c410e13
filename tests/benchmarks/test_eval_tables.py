"""Tables from metrics.json, the card they go into, and the card as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from card_tables import fill_card, read_card
from eval_tables import draw_parts, read_metrics
from figure_tables import CARD_PART, draw_tables
from tiny_figures import read_figures

from ovsam_cli.errors import InputError

ROOT = Path(__file__).parents[2]
CARD, RESULTS = ROOT / "docs" / "model-card-tiny.md", ROOT / "benchmarks" / "results"
ESTIMATE = {"mean": 0.5, "low": 0.4, "high": 0.625, "num_instances": 9}
ALONE = {"mean": 0.0, "low": None, "high": None, "num_instances": 1}
SHOWN = "**.500** [.400, .625]"


def write_metrics(path: Path, **protocol: object) -> str:
    keys = ["iou|all", "iou|small", "iou|base", "top1 2 names|all"]
    keys += [f"top1 2 names, boxes {one}|all" for one in ("as shipped", "scaled")]
    single = ("iou|novel", "top1 2 names, boxes scaled|novel")
    content = {
        "command": "prompted",
        "protocol": {
            "name": "own",
            "prompt": "box",
            "baseline": "none",
            "fusion": "auto",
            "accuracies": ["2 names"],
        }
        | protocol,
        "data": {"num_images": 3, "num_instances": 9},
        "estimates": dict.fromkeys(keys, ESTIMATE) | dict.fromkeys(single, ALONE),
        "calibration": {"expected_error": 0.125},
    }
    path.write_text(json.dumps(content))
    return f"scenes={path}"


def draw(*specs: str) -> dict[str, str]:
    return draw_parts([one for spec in specs for one in read_metrics(spec)])


def test_masks_and_names(tmp_path: Path) -> None:
    """A pattern's files are put in order: the model, then what costs nothing."""
    write_metrics(tmp_path / "b.json")
    write_metrics(tmp_path / "a.json", baseline="ellipse", accuracies=[])
    parts = draw(f"scenes={tmp_path}/*.json")
    assert [*parts] == ["eval"]
    lines = parts["eval"].splitlines()
    assert lines[2:4] == [
        f"| scenes: 3 images, 9 objects | box | .500 | - | - | {SHOWN} |  |",
        f"|  | (ellipse in the box) | .500 | - | - | {SHOWN} |  |",
    ]
    assert lines[-1].endswith(f"| box | 2 names | {SHOWN} |  | .125 |")


def test_ladder(tmp_path: Path) -> None:
    """From the crop of the image to the whole model, whatever the order of the files."""
    specs = [
        write_metrics(tmp_path / f"{one}.json", baseline=one)
        for one in ("none", "feature-crop", "image-crop")
    ]
    specs.append(write_metrics(tmp_path / "p.json", prompt="point"))  # of which there is no crop
    lines = draw(*specs)["ladder"].splitlines()[2:]
    assert [line.split("|")[3].strip() for line in lines] == [
        "second branch, crop of the image",
        "second branch, crop of its features",
        "both branches",
    ]
    assert lines[0].startswith("| scenes: 3 images, 9 objects | box |")
    assert lines[1].startswith("|  |  |")


def test_paper(tmp_path: Path) -> None:
    """A group of one object has no interval, and null in metrics.json says so."""
    keys = ["2 names, boxes as shipped", "2 names, boxes scaled"]
    parts = draw(write_metrics(tmp_path / "p.json", name="paper", accuracies=keys))
    assert [*parts] == ["paper"]
    assert parts["paper"].splitlines()[2] == (
        "| scenes: 9 objects of seen names, 1 of others | box | "
        f"{SHOWN} | **.000** - | {SHOWN} | {SHOWN} | **.000** - |"
    )


def test_calibration(tmp_path: Path) -> None:
    content = {
        "command": "calibrate",
        "protocol": {"prompt_rule": "tight box", "fusion": "head"},
        "data": {"num_named": 7},
        "temperature": 1.25,
        "before": {"expected_error": 0.5},
        "after": {"expected_error": 0.25},
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    line = draw(f"scenes={tmp_path / 'c.json'}")["calibration"].splitlines()[-1]
    assert line == "| scenes: 7 objects | tight box | head alone | 1.25 | .500 | .250 |"


def test_card(tmp_path: Path) -> None:
    card = tmp_path / "card.md"
    card.write_text("before\n<!-- a -->\nold\n<!-- /a -->\n; <!-- b --><!-- /b -->\nend\n")
    fill_card(card, {"a": "new", "b": "also"})
    assert card.read_text() == (
        "before\n<!-- a -->\n\nnew\n\n<!-- /a -->\n; <!-- b -->\n\nalso\n\n<!-- /b -->\nend\n"
    )
    assert read_card(card, "b") == "also"


@pytest.mark.parametrize(
    "text",
    ["nothing", "<!-- a -->", "<!-- /a --><!-- a -->", "<!-- a --><!-- /a --><!-- /a -->"],
)
def test_cards_without_markers_stay(tmp_path: Path, text: str) -> None:
    card = tmp_path / "card.md"
    card.write_text(text)
    with pytest.raises(InputError, match="expected <!-- a --> and then <!-- /a -->, each once"):
        fill_card(card, {"a": "new"})
    assert card.read_text() == text
    with pytest.raises(InputError, match="cannot be read"):
        fill_card(tmp_path / "none.md", {"a": "new"})


def test_other_files_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "m.json"
    other.write_text('{"command": "grid"}')
    with pytest.raises(InputError, match="of `ovsam eval grid`"):
        read_metrics(f"x={other}")
    for spec in ("nothing", f"x={tmp_path}/no*.json"):
        with pytest.raises(InputError, match=r"expected NAME=metrics.*no such file"):
            read_metrics(spec)


def test_the_card_shows_what_was_measured() -> None:
    """Every table of the model card is that of the recorded metrics; none is typed by hand."""
    wanted = draw(
        f"COCO photos={RESULTS}/tiny-*-photos-*.json",
        f"composed scenes={RESULTS}/tiny-*-composed-*.json",
    )
    (recorded,) = RESULTS.glob("tiny-figures-*.json")
    wanted[CARD_PART] = draw_tables(read_figures(recorded))
    assert [*wanted] == ["eval", "ladder", "paper", "calibration", CARD_PART]
    for name, text in wanted.items():
        assert read_card(CARD, name) == text
