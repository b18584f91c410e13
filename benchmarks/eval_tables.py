"""Tables of a model card from the `metrics.json` of `ovsam eval prompted`.

    ovsam eval prompted photos --model tiny --out eval/photos-box
    ovsam eval prompted photos --baseline ellipse --out eval/photos-ellipse
    python benchmarks/eval_tables.py --card docs/model-card-tiny.md \\
        "COCO photos=eval/photos-box/metrics.json" "COCO photos=eval/photos-ellipse/metrics.json"

The tables go between `<!-- eval -->` and `<!-- /eval -->`; without `--card` they are printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ovsam_cli.errors import InputError, OvsamError
from ovsam_cli.evaluation.figure_tables import format_share
from ovsam_cli.outputs.files import write_whole_file

START, END = "<!-- eval -->", "<!-- /eval -->"
BASELINES = {"ellipse": "(ellipse in the box)", "box-fill": "(box filled)"}
SIZES = ("small", "medium", "large")
Metrics = Mapping[str, object]


def read_metrics(spec: str) -> tuple[str, dict[str, object]]:
    """Read `NAME=FILE`.

    Raises:
        InputError: not of this form, or no such metrics.
    """
    name, _, path = spec.partition("=")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["command"] != "prompted":
            raise ValueError(f"of `ovsam eval {content['command']}`")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{spec}: expected NAME=metrics.json of eval prompted ({error})"
        ) from error
    return name, content


def draw_tables(parts: Sequence[tuple[str, Metrics]]) -> str:
    """Masks, then names, as Markdown."""
    masks = [_mask_row(name, one) for name, one in parts]
    names = [row for name, one in parts for row in _name_rows(name, one)]
    head = ["data", "prompt", *SIZES, "mean IoU", "boundary IoU"]
    text = _draw(head, masks)
    if names:
        text += "\n\n" + _draw(["data", "prompt", "names", "top-1", "top-5", "ECE"], names)
    return text


def _mask_row(name: str, metrics: Metrics) -> list[str]:
    sizes = [format_share(_mean(metrics, f"iou|{size}")) for size in SIZES]
    whole = [_bold(metrics, f"{metric}|all") for metric in ("iou", "boundary_iou")]
    return [_describe(name, metrics), _prompt(metrics), *sizes, *whole]


def _name_rows(name: str, metrics: Metrics) -> list[list[str]]:
    protocol = _part(metrics, "protocol")
    accuracies = protocol["accuracies"]
    assert isinstance(accuracies, list)
    rows = []
    for number, key in enumerate(accuracies):
        calibration = metrics["calibration"]
        error = calibration["expected_error"] if isinstance(calibration, dict) else None
        shares = [_bold(metrics, f"{top} {key}|all") for top in ("top1", "top5")]
        shown = format_share(error) if number == 0 else ""
        rows.append([_describe(name, metrics), _prompt(metrics), str(key), *shares, shown])
    return rows


def _describe(name: str, metrics: Metrics) -> str:
    data = _part(metrics, "data")
    return f"{name}: {data['num_images']} images, {data['num_instances']} objects"


def _prompt(metrics: Metrics) -> str:
    protocol = _part(metrics, "protocol")
    baseline = str(protocol["baseline"])
    if baseline in BASELINES:
        return BASELINES[baseline]
    more = "" if baseline == "none" else f" ({baseline})"
    fusion = "" if protocol["fusion"] == "auto" else f", {protocol['fusion']} alone"
    paper = ", paper's protocol" if protocol.get("name") == "paper" else ""
    return f"{protocol['prompt']}{fusion}{paper}{more}"


def _part(metrics: Metrics, key: str) -> Mapping[str, object]:
    found = metrics[key]
    assert isinstance(found, dict)
    return found


def _mean(metrics: Metrics, key: str) -> float | None:
    found = _part(metrics, "estimates").get(key)
    return float(found["mean"]) if isinstance(found, dict) else None


def _bold(metrics: Metrics, key: str) -> str:
    found = _part(metrics, "estimates").get(key)
    if not isinstance(found, dict):
        return ""
    interval = f"[{format_share(found['low'])}, {format_share(found['high'])}]"
    return f"**{format_share(found['mean'])}** {interval}"


def _draw(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a first cell like that of the row above is left empty."""
    shown = [[*row] for row in rows]
    for number in range(len(rows) - 1, 0, -1):
        if rows[number][0] == rows[number - 1][0]:
            shown[number][0] = ""
    lines = [list(header), ["---"] * len(header), *shown]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fill_card(card: Path, tables: str) -> None:
    """Put tables between the two markers of a Markdown file; the rest stays.

    Raises:
        InputError: the file is missing, or has not each marker once, in order.
    """
    try:
        text = card.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{card}: cannot be read: {error.strerror}") from error
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end) or START in rest or END in after:
        raise InputError(f"{card}: expected {START} and then {END}, each once")
    with write_whole_file(card) as file:
        file.write(f"{before}{START}\n\n{tables}\n\n{END}{after}".encode())


def main() -> None:
    """Read, draw, print or fill."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("metrics", nargs="+", metavar="NAME=FILE", help="metrics.json of a run")
    parser.add_argument("--card", type=Path, help="Markdown file whose tables are filled")
    arguments = parser.parse_args()
    try:
        tables = draw_tables([read_metrics(spec) for spec in arguments.metrics])
        if arguments.card is None:
            sys.stdout.write(tables + "\n")
        else:
            fill_card(arguments.card, tables)
    except OvsamError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
