"""What the page asks and is told, as JSON objects; FastAPI checks the questions' types."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypedDict

from ovsam_cli.structures import Rle


@dataclass(frozen=True, slots=True)
class LabelQuery:
    """What is at these points, or in this box?

    Attributes:
        names: key of the names to choose from.
        points: (x, y) pixels, original frame.
        labels: one a point: 1 on the object, 0 beside it.
        box: left, top, right, bottom in pixels, original frame.
    """

    names: str
    points: list[tuple[float, float]] = field(default_factory=list)
    labels: list[Literal[0, 1]] = field(default_factory=list)
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class NamesQuery:
    """Names to choose from: those of a bundled vocabulary, or of one's own.

    Attributes:
        bundled: name of a vocabulary; empty for one's own.
        text: own names, with commas or line ends between.
    """

    bundled: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class KeptObject:
    """An object the user has kept: an answer's id, and the name chosen among its best."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CocoQuery:
    """The objects of a COCO file, and the key of the names that are its categories."""

    names: str
    objects: list[KeptObject]


class NamesAnswer(TypedDict):
    """Names that can be chosen from."""

    key: str
    label: str
    count: int
    first: list[str]


class ImageAnswer(TypedDict):
    """An image that is open; sizes in pixels, original frame."""

    id: str
    name: str
    width: int
    height: int
    warnings: list[str]


class LabelAnswer(TypedDict):
    """An object: its mask, and its best names with their probabilities.

    `id` is empty, and the rest too, where nothing was found.
    """

    id: str
    segmentation: Rle | None
    box: list[float]
    area_share: float
    margin: float
    stability: float
    names: list[tuple[str, float]]
    seconds: float
