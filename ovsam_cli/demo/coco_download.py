"""The kept objects of the page as a COCO file, the same form as that of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ovsam_cli import __version__
from ovsam_cli.demo.service import KeptAnswer
from ovsam_cli.labelling.crops import concatenate_detections
from ovsam_cli.outputs.coco import CocoCategory, CocoOptions, CocoWriter
from ovsam_cli.structures import Detections, ImageRecord, ImageResult
from ovsam_cli.vocabulary import Vocabulary


def build_coco_file(vocabulary: Vocabulary, objects: Sequence[tuple[KeptAnswer, str]]) -> bytes:
    """Write objects of any number of images.

    Categories are those of the vocabulary; names of other vocabularies that objects have come
    behind them.

    Args:
        vocabulary: whose ids count.
        objects: with the name chosen for each.
    """
    ids = dict(zip(vocabulary.names, vocabulary.ids, strict=True))
    for _, name in objects:
        ids.setdefault(name, max(ids.values()) + 1)
    by_image: dict[str, list[tuple[KeptAnswer, str]]] = {}
    for kept, name in objects:
        by_image.setdefault(kept.image_key, []).append((kept, name))
    options = CocoOptions(
        with_prompt=True,
        with_topk=True,
        version=__version__,
        description="Labelled with ovsam demo (Open-Vocabulary SAM)",
    )
    categories = [CocoCategory(number, name) for name, number in ids.items()]
    with tempfile.TemporaryDirectory(prefix="ovsam-demo-") as folder:
        path = Path(folder) / "annotations.json"
        with CocoWriter(path, categories=categories, options=options) as coco:
            for number, of_image in enumerate(by_image.values(), start=1):
                first = of_image[0][0]
                record = ImageRecord(Path(first.image_name), first.image_name, number)
                rows = [
                    _name_object(kept.found, ids[name], name, row)
                    for row, (kept, name) in enumerate(of_image, start=1)
                ]
                found = concatenate_detections(rows)
                coco.write(ImageResult(record, "ok", first.original_hw, detections=found))
        return path.read_bytes()


def _name_object(found: Detections, category_id: int, name: str, row: int) -> Detections:
    """One object under the name the user has chosen; its score is that name's probability."""
    score = dict(found.topk[0])[name]
    return replace(
        found,
        prompt_ids=(row,),
        category_ids=np.array([category_id], np.int64),
        scores=np.array([score], np.float32),
    )
