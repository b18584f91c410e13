"""One batch on the device: encode its images, decode and classify their prompts chunk by chunk.

Nothing here waits for the device (grid mode must, once a chunk): work is queued on it, results are
copied to pinned memory behind it, and whoever reads them waits for their event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ovsam_cli.labelling.crops import Crop
from ovsam_cli.labelling.device_masks import is_large
from ovsam_cli.labelling.model_prompts import to_model_prompts
from ovsam_cli.labelling.planner import ImageBatch
from ovsam_cli.labelling.prompt_chunks import fill_up, group_by_layout, without_filler
from ovsam_cli.labelling.stages import Labeller, classify, decode, encode
from ovsam_cli.labelling.upload import normalize_and_pad
from ovsam_cli.labelling.work_sizes import WorkSizes, attempt, run_in_chunks
from ovsam_cli.model.mask_decoder import DecodedMasks
from ovsam_cli.model.ovsam import ImageFeatures
from ovsam_cli.structures import ImageGeometry, IntArray, Prompts


@dataclass(frozen=True, slots=True)
class View:
    """What was encoded as an image of its own: an image of the batch, or a crop of one.

    Attributes:
        image: place of the image in the batch.
        geometry: the view's frames; the original frame is that of the crop.
        crop: in grid mode, where it lies in the image (layer 0 is all of it); None with prompts.
    """

    image: int
    geometry: ImageGeometry
    crop: Crop | None = None


@dataclass(frozen=True, slots=True)
class ViewFeatures:
    """I views of a batch after the image encoder."""

    views: tuple[View, ...]
    features: ImageFeatures

    @property
    def geometries(self) -> tuple[ImageGeometry, ...]:
        """The frames of the I views."""
        return tuple(view.geometry for view in self.views)

    def only(self, index: int) -> ViewFeatures:
        """One of the views, no copy: decoders project an image once that all prompts share."""
        one, features = slice(index, index + 1), self.features
        fine = features.fine_features
        alone = ImageFeatures(
            image_embeddings=features.image_embeddings[one],
            fpn_features=tuple(level[one] for level in features.fpn_features),
            clip_features=features.clip_features[one],
            input_hw=features.input_hw[one],
            fine_features=None if fine is None else fine[one],
        )
        return ViewFeatures(self.views[one], alone)


@dataclass(frozen=True, slots=True)
class ChunkOutput:
    """Logits of B prompts, in host memory once `ready` has happened.

    Attributes:
        views: that `prompts.image_index` counts.
        prompts: of these logits, original frame of their view.
        order: (B,) int64, where their objects stand in the image's result.
        decoded: one mask each, padded model frame.
        class_logits: (B, K + 1) float32.
        ready: None where the logits are there already.
        device_mask_logits: those of `decoded` on the device, where masks are encoded there.
    """

    views: tuple[View, ...]
    prompts: Prompts
    order: IntArray
    decoded: DecodedMasks
    class_logits: Tensor
    ready: torch.cuda.Event | None
    device_mask_logits: Tensor | None = None

    @property
    def num_bytes(self) -> int:
        """What the logits take."""
        return self.decoded.mask_logits.nbytes + self.class_logits.nbytes


def iter_batch_outputs(
    labeller: Labeller, batch: ImageBatch, uploaded: Sequence[Tensor], sizes: WorkSizes
) -> Iterator[ChunkOutput]:
    """Label the prompts of I images; nothing is encoded for a batch without prompts.

    Args:
        labeller: model, names and options.
        batch: images with prompts of their own.
        uploaded: their (h, w, 3) uint8 pixels on the device.
        sizes: prompts a chunk.

    Raises:
        MemoryError: even the smallest chunk was too large; fewer images may fit.
    """
    if len(batch.prompts) == 0:
        return
    views = tuple(View(place, geometry) for place, geometry in enumerate(batch.geometries))
    encoded = encode_views(labeller, views, uploaded, sizes)
    yield from iter_prompt_outputs(labeller, encoded, batch.prompts, sizes)


def iter_prompt_outputs(
    labeller: Labeller, encoded: ViewFeatures, prompts: Prompts, sizes: WorkSizes
) -> Iterator[ChunkOutput]:
    """Label prompts of images that are encoded already.

    Args:
        labeller: model, names and options.
        encoded: the images, as views that `prompts.image_index` counts.
        prompts: B prompts, original frame.
        sizes: prompts a chunk.

    Raises:
        MemoryError: even the smallest chunk was too large.
    """
    for rows in group_by_layout(prompts):
        work = partial(_label_rows, labeller, encoded, prompts.take(rows), rows)
        yield from run_in_chunks(len(rows), sizes, work)


def encode_views(
    labeller: Labeller, views: tuple[View, ...], uploaded: Sequence[Tensor], sizes: WorkSizes
) -> ViewFeatures:
    """Run the image tower once for views whose (h, w, 3) uint8 pixels are on the device.

    Raises:
        MemoryError: they are too many at once.
    """
    images, geometries = list(uploaded), [view.geometry for view in views]
    if sizes.fixed:  # compiled graphs have one number of images; what is repeated is not used
        num_missing = max(0, sizes.images - len(images))
        images += images[-1:] * num_missing
        geometries += geometries[-1:] * num_missing

    def work() -> ImageFeatures:
        return encode(labeller, normalize_and_pad(images, labeller.pixel_format), geometries)

    features = attempt(work)
    if features is None:
        raise MemoryError(f"{len(views)} images at once are too many")
    return ViewFeatures(views, features)


def _label_rows(
    labeller: Labeller,
    encoded: ViewFeatures,
    prompts: Prompts,
    order: IntArray,
    rows: slice,
    num_rows: int,
) -> ChunkOutput:
    """Masks and names of the prompts at `rows`, filled up to `num_rows` on the device."""
    chosen = prompts.take(rows)
    if len(encoded.views) > 1 and (chosen.image_index == chosen.image_index[0]).all():
        encoded = encoded.only(int(chosen.image_index[0]))
        chosen = chosen.with_image_index(0)
    model_prompts = to_model_prompts(
        fill_up(without_filler(chosen), num_rows), encoded.geometries, device=labeller.device
    )
    decoded = decode(labeller, encoded.features, model_prompts)
    class_logits = classify(labeller, encoded.features, decoded.mask_logits, model_prompts)
    real = slice(0, len(chosen))
    return send_home(
        labeller, encoded.views, chosen, order[rows], decoded.take(real), class_logits[real]
    )


def send_home(
    labeller: Labeller,
    views: tuple[View, ...],
    prompts: Prompts,
    order: IntArray,
    decoded: DecodedMasks,
    class_logits: Tensor,
) -> ChunkOutput:
    """Copy logits to host memory without waiting for them; some stay on the device as well."""
    ious = decoded.iou_predictions
    home = DecodedMasks(_to_host(decoded.mask_logits), None if ious is None else _to_host(ious))
    home_logits = _to_host(class_logits)
    ready = None
    if class_logits.is_cuda:
        ready = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        ready.record(torch.cuda.current_stream(class_logits.device))
    stay = labeller.encodes_on_device and any(is_large(view.geometry) for view in views)
    kept = decoded.mask_logits if stay else None
    return ChunkOutput(views, prompts, order, home, home_logits, ready, kept)


def _to_host(tensor: Tensor) -> Tensor:
    if not tensor.is_cuda:
        return tensor.cpu()
    # PyTorch keeps pinned memory that is free, so that it is pinned once and not a chunk.
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
