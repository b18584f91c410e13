"""What the page can do, without the web: open images, ask for masks and names, make a COCO file."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ovsam_cli.demo.names import BUNDLED_CHOICES, choose_names
from ovsam_cli.demo.queries import (
    CocoQuery,
    ImageAnswer,
    LabelAnswer,
    LabelQuery,
    NamesAnswer,
    NamesQuery,
)
from ovsam_cli.demo.store import BoundedStore
from ovsam_cli.demo.uploads import clean_name, make_picture, read_upload
from ovsam_cli.errors import InputError
from ovsam_cli.labelling.interactive import (
    EncodedImage,
    encode_image,
    label_prompts,
    make_prompt,
)
from ovsam_cli.labelling.labeller import with_vocabulary
from ovsam_cli.labelling.stages import Labeller
from ovsam_cli.model.text_encoder import TextEncoder
from ovsam_cli.outputs.json_values import shortest_floats
from ovsam_cli.structures import Detections
from ovsam_cli.vocabulary import Vocabulary

MAX_IMAGES, MAX_IMAGE_BYTES = 8, 2 << 30
MAX_NAME_SETS, MAX_NAME_BYTES = 8, 1 << 30
MAX_ANSWERS, MAX_ANSWER_BYTES = 4096, 64 << 20
MAX_POINTS = 64
KEY_LENGTH = 24
FIRST_NAMES = 6  # shown of a vocabulary


class GoneError(InputError):
    """An image, or an answer, that is not kept any more."""


@dataclass(frozen=True, slots=True)
class OpenImage:
    """An image of the page.

    Attributes:
        key, name: of the image.
        encoded: after the image encoder.
        picture: JPEG for the page.
    """

    key: str
    name: str
    encoded: EncodedImage
    picture: bytes


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """One object that the page was told of, with the image it belongs to."""

    image_key: str
    image_name: str
    original_hw: tuple[int, int]
    found: Detections


class DemoService:
    """Answers of one model; one question at a time reaches it.

    Args:
        labeller: model and first names; its `text_hash` is their key.
        load_text_encoder: called when other names are asked for first.
    """

    def __init__(self, labeller: Labeller, load_text_encoder: Callable[[], TextEncoder]) -> None:
        self._first = labeller
        self._load_text_encoder = load_text_encoder
        self._text_encoder: TextEncoder | None = None
        self._model_lock = threading.Lock()
        self._images: BoundedStore[OpenImage] = BoundedStore(
            max_entries=MAX_IMAGES, max_bytes=MAX_IMAGE_BYTES
        )
        self._name_sets: BoundedStore[Labeller] = BoundedStore(
            max_entries=MAX_NAME_SETS, max_bytes=MAX_NAME_BYTES
        )
        self._answers: BoundedStore[KeptAnswer] = BoundedStore(
            max_entries=MAX_ANSWERS, max_bytes=MAX_ANSWER_BYTES
        )

    def warm_up(self) -> None:
        """Answer a question nobody asked: the first one loads libraries, for seconds."""
        gray = np.full((64, 64, 3), 128, np.uint8)
        label_prompts(
            self._first, encode_image(self._first, gray), make_prompt(points=[(32, 32)], labels=[1])
        )

    @property
    def first_names(self) -> NamesAnswer:
        """The names the page starts with."""
        return _describe_names(self._first)

    def open_image(self, data: bytes, name: str) -> ImageAnswer:
        """Decode and encode an uploaded image.

        Raises:
            ImageError: it cannot be read, or is too large.
            DeviceError: not enough memory.
        """
        name = clean_name(name)
        decoded = read_upload(data, name)
        key = decoded.sha256[:KEY_LENGTH]  # so that an image opened twice is encoded once
        image = self._images.get(key)
        if image is None:
            with self._model_lock:
                encoded = encode_image(self._first, decoded.rgb, file_name=name)
            image = OpenImage(key, name, encoded, make_picture(decoded.rgb))
        else:
            image = replace(image, name=name)
        self._images.put(key, image, image.encoded.num_bytes + len(image.picture))
        height, width = image.encoded.geometry.original_hw
        return {
            "id": key,
            "name": name,
            "width": width,
            "height": height,
            "warnings": list(decoded.warnings),
        }

    def picture(self, image_key: str) -> bytes:
        """JPEG file of an open image.

        Raises:
            GoneError: it is not open any more.
        """
        return self._find_image(image_key).picture

    def label(self, image_key: str, query: LabelQuery) -> LabelAnswer:
        """Mask and names of one object.

        Raises:
            GoneError: image or names are not kept any more.
            InputError: the prompt is none.
            ImageError, DeviceError: it cannot be computed.
        """
        started = time.perf_counter()
        image, labeller = self._find_image(image_key), self._find_names(query.names)
        if len(query.points) > MAX_POINTS:
            raise InputError(f"{len(query.points)} points; at most {MAX_POINTS} for one object")
        prompt = make_prompt(points=query.points, labels=query.labels, box_xyxy=query.box)
        with self._model_lock:
            found = label_prompts(labeller, image.encoded, prompt)
        original_hw = image.encoded.geometry.original_hw
        answer = _describe_object(found, original_hw, time.perf_counter() - started)
        if answer["id"]:
            kept = KeptAnswer(image.key, image.name, original_hw, found)
            self._answers.put(answer["id"], kept, len(found.segmentations[0]["counts"]) + 1000)
        return answer

    def choose_names(self, query: NamesQuery) -> NamesAnswer:
        """Names to choose from; names encoded before come from the cache.

        Raises:
            VocabularyError: they cannot be used; says why.
        """
        vocabulary = choose_names(query.bundled, query.text)
        with self._model_lock:
            if self._text_encoder is None:
                self._text_encoder = self._load_text_encoder()
            labeller = with_vocabulary(self._first, vocabulary, self._text_encoder)
        self._name_sets.put(
            labeller.text_hash, labeller, labeller.text_embeddings.nbytes + 200 * len(vocabulary)
        )
        return _describe_names(labeller)

    def kept_objects(self, query: CocoQuery) -> tuple[Vocabulary, list[tuple[KeptAnswer, str]]]:
        """The objects of a COCO file with the names chosen for them.

        Raises:
            GoneError: an object is not kept any more.
            InputError: a name is not one of the object's best.
        """
        objects = []
        for one in query.objects:
            kept = self._answers.get(one.id)
            if kept is None:
                raise GoneError("an object of the list is not kept any more; mark it again")
            if one.name not in [name for name, _ in kept.found.topk[0]]:
                raise InputError(f"{one.name!r} is none of the object's best names")
            objects.append((kept, one.name))
        return self._find_names(query.names).vocabulary, objects

    def _find_image(self, key: str) -> OpenImage:
        image = self._images.get(key)
        if image is None:
            raise GoneError("the image is not open any more; open it again")
        return image

    def _find_names(self, key: str) -> Labeller:
        labeller = self._first if key == self._first.text_hash else self._name_sets.get(key)
        if labeller is None:
            raise GoneError("these names are not kept any more; choose them again")
        return labeller


def _describe_names(labeller: Labeller) -> NamesAnswer:
    names = labeller.vocabulary.names
    label = labeller.vocabulary.name
    return {
        "key": labeller.text_hash,
        "label": label if label in BUNDLED_CHOICES else "",
        "count": len(names),
        "first": list(names[:FIRST_NAMES]),
    }


def _describe_object(
    found: Detections, original_hw: tuple[int, int], seconds: float
) -> LabelAnswer:
    is_there = len(found) > 0
    return {
        "id": secrets.token_urlsafe(12) if is_there else "",
        "segmentation": found.segmentations[0] if is_there else None,
        "box": shortest_floats(found.boxes_xyxy[0]) if is_there else [],
        "area_share": float(found.areas.sum()) / (original_hw[0] * original_hw[1]),
        "margin": float(found.margins[0]) if is_there else 0.0,
        "stability": float(found.stability_scores[0]) if is_there else 0.0,
        "names": list(found.topk[0]) if is_there else [],
        "seconds": round(seconds, 4),
    }
