"""Figures as tables: for the terminal, and for a model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from card_tables import draw_markdown, format_bold
from figure_speed import Speed
from figures import SetFigures

from ovsam_cli.evaluation.figure_tables import format_share

CARD_PART = "figures"  # between which markers of the card


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What was measured.

    Attributes:
        name: of the model.
        file_name, weights_sha256, weights_bytes: of its file, or of its files together.
        num_parameters: of all parts.
        iou_head: whether it predicts the IoU of its masks.
    """

    name: str
    file_name: str
    weights_sha256: str
    weights_bytes: int
    num_parameters: int
    iou_head: bool


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Where and with what: hardware, load of the machine, versions by package, day."""

    cpu: str
    num_cores: int
    num_threads: int
    load_average: float
    versions: dict[str, str]
    date: str


@dataclass(frozen=True, slots=True)
class Figures:
    """One measurement of a model."""

    model: ModelFacts
    circumstances: Circumstances
    speed: Speed
    sets: tuple[SetFigures, ...]


def draw_tables(figures: Figures) -> str:
    """Markdown of everything, without headings."""
    model, place, speed = figures.model, figures.circumstances, figures.speed
    versions = ", ".join(f"{name} {version}" for name, version in place.versions.items())
    about = (
        f"Measured on {place.date} with {versions}; weights `{model.file_name}`, SHA-256 "
        f"`{model.weights_sha256[:16]}...`. In brackets: 95 % intervals, images drawn "
        "1,000 times."
    )
    size = (
        f"Size: {model.weights_bytes / 1e6:.1f} MB, {model.num_parameters / 1e6:.2f} million "
        f"parameters. Speed: **{speed.images_per_second:.1f} images/s** with one box each "
        f"(median of {speed.num_images}, {place.num_threads} threads, {place.cpu}, load average "
        f"{place.load_average:.1f} on {place.num_cores} cores while measuring); "
        f"{speed.cpu_seconds_per_image:.2f} s of processor time an image."
    )
    tables = [draw_near_table(figures.sets)]
    if model.iou_head:
        tables.append(draw_quality_table(figures.sets))
    return "\n\n".join([about, *tables, size])


def draw_near_table(sets: Sequence[SetFigures]) -> str:
    """Top-1 and top-5 of the names near an ImageNet class."""
    rows = []
    for one in sets:
        if "near top1" in one.estimates:
            count = one.estimates["near top1"].num_instances
            names = f"{one.num_names} (`{one.vocabulary}`): {count} objects"
            shares = [format_bold(one.estimates.get(f"near top{top}")) for top in (1, 5)]
            rows.append([_describe(one), names, *shares])
    header = ["names near an ImageNet class", "of", "top-1", "top-5"]
    return draw_markdown(header, rows, num_grouped=2)


def draw_quality_table(sets: Sequence[SetFigures]) -> str:
    """How far predicted IoUs are from the true ones."""
    rows = [
        [_describe(one), _plain(one, "box IoU error"), _plain(one, "center IoU error")]
        for one in sets
    ]
    header = ["mean error of the predicted IoU", "box prompts", "centre points"]
    return draw_markdown(header, rows)


def _describe(one: SetFigures) -> str:
    return f"{one.name}: {one.num_images} images, {one.num_instances} objects"


def _plain(one: SetFigures, key: str) -> str:
    estimate = one.estimates.get(key)
    return "" if estimate is None else format_share(estimate.mean)
