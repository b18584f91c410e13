"""What `ovsam eval` does not say of a model on annotated images, for its model card.

Speed and size, how far the predicted IoU is off, names near an ImageNet class, and a picture of
failures; masks, names and baselines: `ovsam eval prompted` and `eval_tables.py`.

    python benchmarks/tiny_figures.py --model tiny \\
        --data "COCO photos=photos/instances.json:photos/images:coco" \\
        --data "composed scenes=composed_val/instances.json:composed_val/images:demo" \\
        --pictures "composed scenes" --out figures --card docs/model-card-tiny.md

Prompts come from the true masks: tight boxes, and the point deepest inside. `--out` gets
`figures.json` and, from the sets named by `--pictures` alone (mind the licences of the others),
`failures.jpg`. `--card` fills the tables between the markers of a Markdown file; with `--figures
FOLDER/figures.json` it does so from an earlier measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from card_tables import fill_card
from failure_pictures import Case, choose_cases, draw_montage, write_montage
from figure_answers import (
    AnnotatedSet,
    SetAnswers,
    ask_model,
    embed_names,
    read_annotated_set,
)
from figure_speed import Speed, build_labeller, measure_speed
from figure_tables import CARD_PART, Circumstances, Figures, ModelFacts, draw_tables
from figures import measure_set, read_set_figures

from ovsam_cli.cli.memory import keep_freed_memory
from ovsam_cli.errors import InputError, OvsamError
from ovsam_cli.evaluation.protocol import PromptKind
from ovsam_cli.labelling.device import choose_device
from ovsam_cli.model.checkpoint import LoadedModel, load_model
from ovsam_cli.model.inference import prepare_for_inference
from ovsam_cli.model.text_towers import load_text_tower
from ovsam_cli.outputs.files import write_whole_file

PACKAGES = ("ovsam-cli", "torch", "torchvision", "numpy")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="tiny", help="bundled or known name, file, or folder")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="NAME=ANNOTATIONS:IMAGES[:VOCABULARY]",
        help="a data set; without a vocabulary its own names compete; may be given again",
    )
    parser.add_argument(
        "--pictures", action="append", default=[], metavar="NAME", help="set shown in failures.jpg"
    )
    parser.add_argument("--out", type=Path, help="folder for figures.json and failures.jpg")
    parser.add_argument("--card", type=Path, help="Markdown file whose tables are filled")
    parser.add_argument("--figures", type=Path, help="earlier figures.json, instead of measuring")
    parser.add_argument("--max-images", type=int, help="of each data set, the first ones")
    parser.add_argument("--speed-images", type=int, default=40, help="images timed")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--device", default="cpu", help="cpu, cuda:0, mps or auto")
    found = parser.parse_args(arguments)
    if bool(found.data) == bool(found.figures):
        parser.error("give --data, or --figures of an earlier measurement")
    return found


def measure(arguments: argparse.Namespace) -> Figures:
    """Measure, and write the picture of failures where it is asked for."""
    keep_freed_memory()  # as `ovsam label` does
    torch.set_num_threads(arguments.threads)
    sets = [read_annotated_set(spec, max_images=arguments.max_images) for spec in arguments.data]
    unknown = sorted({*arguments.pictures} - {one.name for one in sets})
    if unknown:
        raise InputError(f"--pictures {unknown[0]}: no --data has that name")
    device = choose_device(arguments.device)
    loaded = load_model(arguments.model, device=device, on_message=say)
    model_facts = describe_model(loaded)
    prepare_for_inference(loaded.model)  # as `ovsam label` does, too
    encoder = load_text_tower(arguments.model, device=device, on_message=say)
    measured, cases = [], []
    speed: Speed | None = None
    for one in sets:
        names = embed_names(loaded, encoder, one.vocabulary)
        if speed is None:  # on the first set, before the machine is warm or its memory full
            labeller = build_labeller(loaded, one, names)
            speed = measure_speed(labeller, one.dataset.images, num_images=arguments.speed_images)
        say(f"{one.name}: {len(one.dataset.images)} images, {len(one.instances)} objects")
        answers = ask_model(loaded.model, one, names)
        measured.append(measure_set(one, names, answers))
        if one.name in arguments.pictures:
            cases += collect_cases(one, answers)
    if arguments.out is not None and cases:
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_montage(draw_montage(*choose_cases(cases)), arguments.out / "failures.jpg")
    assert speed is not None  # there is at least one set
    place = describe_circumstances(arguments.threads)
    return Figures(model_facts, place, speed, tuple(measured))


def collect_cases(asked: AnnotatedSet, answers: Mapping[PromptKind, SetAnswers]) -> list[Case]:
    """Every object with the answer to its box."""
    found, true_rows = answers["box"], asked.true_rows
    images = [image for image in asked.dataset.images for _ in image.instances]
    cases = []
    for row, (image, instance) in enumerate(zip(images, asked.instances, strict=True)):
        true_row, said_row = true_rows[row], found.best_rows[row]
        true_name = asked.dataset.category_names[instance.category_id]
        cases.append(
            Case(
                image=image.path,
                truth=instance.segmentation,
                found=found.segmentations[row],
                iou=float(found.ious[row]),
                true_name=true_name if true_row >= 0 else f"{true_name} (not in the vocabulary)",
                said_name=asked.vocabulary.names[said_row],
                is_right=bool(said_row == true_row),
            )
        )
    return cases


def describe_model(loaded: LoadedModel) -> ModelFacts:
    """Name, files and size."""
    return ModelFacts(
        name=loaded.name,
        file_name=", ".join(path.name for path in loaded.paths),
        weights_sha256=loaded.weights_sha256,
        weights_bytes=sum(path.stat().st_size for path in loaded.paths),
        num_parameters=sum(value.numel() for value in loaded.model.parameters()),
        iou_head=loaded.config.iou_head,
    )


def describe_circumstances(num_threads: int) -> Circumstances:
    """What speed depends on, and what made the figures."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    processors = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return Circumstances(
        cpu=processors[0] if processors else platform.processor() or platform.machine(),
        num_cores=os.cpu_count() or 0,
        num_threads=num_threads,
        load_average=round(os.getloadavg()[0], 1),
        versions={
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
        date=time.strftime("%Y-%m-%d"),
    )


def write_figures(figures: Figures, path: Path) -> None:
    """As JSON; `read_figures` reads it."""
    text = json.dumps(asdict(figures), indent=1, allow_nan=False) + "\n"
    with write_whole_file(path) as file:
        file.write(text.encode())


def read_figures(path: Path) -> Figures:
    """Read what `write_figures` wrote.

    Raises:
        InputError: no such file, or another one.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Figures(
            model=ModelFacts(**values["model"]),
            circumstances=Circumstances(**values["circumstances"]),
            speed=Speed(**values["speed"]),
            sets=tuple(read_set_figures(entry) for entry in values["sets"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a figures.json of this script: {error}") from error


def say(text: str) -> None:
    """Progress goes to stderr, so that the tables can be piped."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Measure or read, print, write."""
    arguments = parse_arguments(sys.argv[1:])
    try:
        if arguments.figures is not None:
            figures = read_figures(arguments.figures)
        else:
            figures = measure(arguments)
        print(draw_tables(figures))
        if arguments.out is not None:
            arguments.out.mkdir(parents=True, exist_ok=True)
            write_figures(figures, arguments.out / "figures.json")
        if arguments.card is not None:
            fill_card(arguments.card, {CARD_PART: draw_tables(figures)})
    except OvsamError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
