"""Tables of a model card from the `metrics.json` of `ovsam eval prompted` and `calibrate`.

    ovsam eval prompted photos --model tiny --out eval/photos-box
    ovsam eval prompted photos --baseline ellipse --out eval/photos-ellipse
    python benchmarks/eval_tables.py --card docs/model-card-tiny.md \\
        "COCO photos=eval/photos-*/metrics.json"

A file may be a pattern. What is given decides which tables there are: masks and names (`eval`),
names by crops and by the whole model (`ladder`), the paper's protocol (`paper`), temperatures
(`calibration`). With `--card` each goes between its markers, such as `<!-- eval -->` and
`<!-- /eval -->`; else all are printed.
"""

from __future__ import annotations

import argparse
import glob
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from card_tables import draw_markdown, fill_card, format_bold

from ovsam_cli.errors import InputError, OvsamError
from ovsam_cli.evaluation.bootstrap import Estimate
from ovsam_cli.evaluation.figure_tables import format_share

SHAPES = {"ellipse": "(ellipse in the box)", "box-fill": "(box filled)"}
STEPS = {
    "image-crop": "second branch, crop of the image",
    "feature-crop": "second branch, crop of its features",
    "none": "both branches",
}
CROPS = ("image-crop", "feature-crop")
SIZES = ("small", "medium", "large")
AS_SHIPPED, SCALED = ", boxes as shipped", ", boxes scaled"
Metrics = Mapping[str, object]
Named = tuple[str, Metrics]


def read_metrics(spec: str) -> list[Named]:
    """Read `NAME=FILE`, where the file may be a pattern; in order of prompts and baselines.

    Raises:
        InputError: not of this form, or no such metrics.
    """
    name, _, pattern = spec.partition("=")
    try:
        paths = sorted(glob.glob(pattern))
        if not paths:
            raise ValueError("no such file")
        found = [json.loads(Path(path).read_text(encoding="utf-8")) for path in paths]
        for content in found:
            if content["command"] not in ("prompted", "calibrate"):
                raise ValueError(f"of `ovsam eval {content['command']}`")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{spec}: expected NAME=metrics.json of eval prompted or calibrate ({error})"
        ) from error
    return [(name, one) for one in sorted(found, key=_find_place)]


def _find_place(metrics: Metrics) -> tuple[int, str]:
    """Models before shapes, boxes before points."""
    protocol = _part(metrics, "protocol")
    baselines = ["none", *SHAPES, *STEPS]
    return baselines.index(str(protocol.get("baseline", "none"))), str(protocol.get("prompt"))


def draw_parts(found: Sequence[Named]) -> dict[str, str]:
    """The tables as Markdown by name of their place in the card; none without rows."""
    prompted = [one for one in found if one[1]["command"] == "prompted"]
    paper = [one for one in prompted if _part(one[1], "protocol")["name"] == "paper"]
    own = [one for one in prompted if one not in paper]
    plain = [one for one in own if _baseline(one[1]) in ("none", *SHAPES)]
    cropped = {(name, _prompt(one)) for name, one in own if _baseline(one) in CROPS}
    parts = {
        "eval": _draw_eval(plain),
        "ladder": _draw_ladder([one for one in own if (one[0], _prompt(one[1])) in cropped]),
        "paper": _draw_paper(paper),
        "calibration": _draw_calibration([one for one in found if one not in prompted]),
    }
    return {name: text for name, text in parts.items() if text}


def _draw_eval(found: Sequence[Named]) -> str:
    """Masks, then names."""
    if not found:
        return ""
    masks = [_mask_row(name, one) for name, one in found]
    names = [row for name, one in found for row in _name_rows(name, one)]
    text = draw_markdown(["data", "prompt", *SIZES, "mean IoU", "boundary IoU"], masks)
    if names:
        header = ["data", "prompt", "names", "top-1", "top-5", "ECE"]
        text += "\n\n" + draw_markdown(header, names)
    return text


def _mask_row(name: str, metrics: Metrics) -> list[str]:
    sizes = [_share(metrics, f"iou|{size}") for size in SIZES]
    whole = [format_bold(_estimate(metrics, f"{one}|all")) for one in ("iou", "boundary_iou")]
    return [_describe(name, metrics), _prompt(metrics), *sizes, *whole]


def _name_rows(name: str, metrics: Metrics) -> list[list[str]]:
    rows = []
    for number, key in enumerate(_accuracies(metrics)):
        calibration = metrics["calibration"]
        error = calibration["expected_error"] if isinstance(calibration, dict) else None
        shares = [format_bold(_estimate(metrics, f"{top} {key}|all")) for top in ("top1", "top5")]
        shown = format_share(error) if number == 0 else ""
        rows.append([_describe(name, metrics), _prompt(metrics), key, *shares, shown])
    return rows


def _draw_ladder(found: Sequence[Named]) -> str:
    """Who names an object, from a mere crop to the whole model; the masks are the same."""
    if not found:
        return ""
    steps = [*STEPS]
    rows = []
    for name, one in found:
        if _baseline(one) in STEPS:
            key, prompt = _accuracies(one)[0], str(_part(one, "protocol")["prompt"])
            tops = [format_bold(_estimate(one, f"{top} {key}|all")) for top in ("top1", "top5")]
            order = (_describe(name, one), prompt, steps.index(_baseline(one)))
            rows.append((order, [*order[:2], STEPS[_baseline(one)], key, *tops]))
    header = ["data", "prompt", "named by", "names", "top-1", "top-5"]
    return draw_markdown(header, [row for _, row in sorted(rows)], num_grouped=2)


def _draw_paper(found: Sequence[Named]) -> str:
    """Mask IoU of base and novel names, top-1 by each variant of CLIP's box."""
    if not found:
        return ""
    rows = []
    for name, one in found:
        base, novel = (_estimate(one, f"iou|{group}") for group in ("base", "novel"))
        counts = [0 if group is None else group.num_instances for group in (base, novel)]
        data = f"{name}: {counts[0]} objects of seen names, {counts[1]} of others"
        key = _accuracies(one)[0].removesuffix(AS_SHIPPED)
        variants = [_estimate(one, f"top1 {key}{box}|all") for box in (AS_SHIPPED, SCALED)]
        unseen = _estimate(one, f"top1 {key}{SCALED}|novel")
        cells = [format_bold(value) for value in (base, novel, *variants, unseen)]
        rows.append([data, str(_part(one, "protocol")["prompt"]), *cells])
    header = ["data", "prompt", "IoU seen", "IoU others"]
    header += [f"top-1{box}" for box in (AS_SHIPPED, SCALED)]
    return draw_markdown([*header, "top-1 others"], rows)


def _draw_calibration(found: Sequence[Named]) -> str:
    if not found:
        return ""
    rows = []
    for name, one in found:
        errors = []
        for key in ("before", "after"):
            error = _part(one, key)["expected_error"]
            assert isinstance(error, float)
            errors.append(format_share(error))
        data, protocol = _part(one, "data"), _part(one, "protocol")
        temperature = one["temperature"]
        assert isinstance(temperature, float)
        described = f"{name}: {data['num_named']} objects"
        prompt, fusion = str(protocol["prompt_rule"]), str(protocol["fusion"])
        branches = "both" if fusion == "auto" else f"{fusion} alone"
        rows.append([described, prompt, branches, f"{temperature:.2f}", *errors])
    rows.sort(key=lambda row: row[0] + row[2])
    header = ["fitted on", "prompt", "branches", "temperature", "ECE at 1", "ECE, cross-fitted"]
    return draw_markdown(header, rows)


def _describe(name: str, metrics: Metrics) -> str:
    data = _part(metrics, "data")
    return f"{name}: {data['num_images']} images, {data['num_instances']} objects"


def _prompt(metrics: Metrics) -> str:
    protocol, baseline = _part(metrics, "protocol"), _baseline(metrics)
    if baseline in SHAPES:
        return SHAPES[baseline]
    fusion = "" if protocol["fusion"] == "auto" else f", {protocol['fusion']} alone"
    return f"{protocol['prompt']}{fusion}"


def _baseline(metrics: Metrics) -> str:
    return str(_part(metrics, "protocol")["baseline"])


def _accuracies(metrics: Metrics) -> list[str]:
    found = _part(metrics, "protocol")["accuracies"]
    assert isinstance(found, list)
    return found


def _part(metrics: Metrics, key: str) -> Mapping[str, object]:
    found = metrics[key]
    assert isinstance(found, dict)
    return found


def _estimate(metrics: Metrics, key: str) -> Estimate | None:
    found = _part(metrics, "estimates").get(key)
    return Estimate.from_json(found) if isinstance(found, dict) else None


def _share(metrics: Metrics, key: str) -> str:
    found = _estimate(metrics, key)
    return "-" if found is None else format_share(found.mean)


def main() -> None:
    """Read, draw, print or fill."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("metrics", nargs="+", metavar="NAME=FILE", help="metrics.json of runs")
    parser.add_argument("--card", type=Path, help="Markdown file whose tables are filled")
    arguments = parser.parse_args()
    try:
        parts = draw_parts([one for spec in arguments.metrics for one in read_metrics(spec)])
        if arguments.card is None:
            sys.stdout.write("\n\n".join(parts.values()) + "\n")
        else:
            fill_card(arguments.card, parts)
    except OvsamError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
