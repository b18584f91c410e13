"""`ovsam export FORMAT`: one command a format, all alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ovsam_cli.cli.export_source import ExportJob, run_export

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Output folder of `ovsam label`, shards, Parquet parts, or a COCO file.",
    ),
]
OutFolder = Annotated[Path, typer.Option("--out", help="Folder to write; new or empty.")]
OutFile = Annotated[Path, typer.Option("--out", help="File to write.")]
Images = Annotated[
    Literal["link", "copy", "none"],
    typer.Option(
        help="How the images get beside their labels: symbolic links, copies, not at all."
    ),
]
ImageRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the images. Default: where they were labelled; a COCO file's own folder."
    ),
]
Partial = Annotated[
    bool, typer.Option("--partial", help="Take unfinished runs, and leave out missing shards.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="On stderr errors only.")]
ValShare = Annotated[
    float, typer.Option("--val", min=0.0, max=0.99, help="Share of the images for validation.")
]
Seed = Annotated[int, typer.Option(help="Another seed gives another split.")]


def add_formats(app: typer.Typer) -> None:
    """Give `ovsam export` its formats."""
    for name, function in (
        ("coco-results", coco_results),
        ("lvis", lvis),
        ("yolo-seg", yolo_seg),
        ("yolo-box", yolo_box),
        ("voc", voc),
        ("labelme", labelme),
        ("x-anylabeling", x_anylabeling),
        ("label-studio", label_studio),
        ("cvat", cvat),
        ("hf-imagefolder", hf_imagefolder),
        ("webdataset", webdataset),
    ):
        app.command(name)(function)


def coco_results(
    source: Sources,
    out: OutFile,
    max_per_image: Annotated[
        int | None, typer.Option(min=1, help="Only the best so many of an image (LVIS: 300).")
    ] = None,
    partial: Partial = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """COCO results list: detections for evaluation programs."""
    from ovsam_cli.outputs.exports.coco_results import open_coco_results

    run_export(
        ExportJob(source, out, partial, None, overwrite, quiet, is_file=True),
        lambda categories: open_coco_results(out, categories, max_per_image=max_per_image),
    )


def lvis(
    source: Sources,
    out: OutFile,
    partial: Partial = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """LVIS data set; categories found in an image count as not exhaustive there."""
    from ovsam_cli.outputs.exports.lvis import open_lvis

    run_export(
        ExportJob(source, out, partial, None, overwrite, quiet, is_file=True),
        lambda categories: open_lvis(out, categories),
    )


def yolo_seg(
    source: Sources,
    out: OutFolder,
    val_share: ValShare = 0.1,
    seed: Seed = 0,
    images: Images = "link",
    image_root: ImageRoot = None,
    partial: Partial = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """YOLO polygons and data.yaml; parts of a mask are joined, holes are lost."""
    from ovsam_cli.outputs.exports.yolo import YoloOptions, open_yolo
    from ovsam_cli.outputs.image_files import ImageSource

    options = YoloOptions("polygons", val_share, seed, ImageSource(images, image_root))
    run_export(
        ExportJob(source, out, partial, image_root, overwrite, quiet),
        lambda categories: open_yolo(out, categories, options, overwrite=overwrite),
    )


def yolo_box(
    source: Sources,
    out: OutFolder,
    val_share: ValShare = 0.1,
    seed: Seed = 0,
    images: Images = "link",
    image_root: ImageRoot = None,
    partial: Partial = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """YOLO boxes and data.yaml."""
    from ovsam_cli.outputs.exports.yolo import YoloOptions, open_yolo
    from ovsam_cli.outputs.image_files import ImageSource

    options = YoloOptions("boxes", val_share, seed, ImageSource(images, image_root))
    run_export(
        ExportJob(source, out, partial, image_root, overwrite, quiet),
        lambda categories: open_yolo(out, categories, options, overwrite=overwrite),
    )


def voc(
    source: Sources,
    out: OutFolder,
    images: Images = "link",
    image_root: ImageRoot = None,
    partial: Partial = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Pascal VOC: boxes in XML, masks as pictures, the small above the large."""
    from ovsam_cli.outputs.exports.voc import open_voc
    from ovsam_cli.outputs.image_files import ImageSource

    place = ImageSource(images, image_root)
    run_export(
        ExportJob(source, out, partial, image_root, overwrite, quiet),
        lambda categories: open_voc(out, categories, place, overwrite=overwrite),
    )


def labelme(
    source: Sources,
    out: OutFolder,
    images: Images = "link",
    image_root: ImageRoot = None,
    partial: Partial = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """labelme: a JSON file beside each image, masks without loss."""
    from ovsam_cli.outputs.exports.labelme import open_labelme
    from ovsam_cli.outputs.image_files import ImageSource

    place = ImageSource(images, image_root)
    run_export(
        ExportJob(source, out, partial, image_root, overwrite, quiet),
        lambda categories: open_labelme(out, categories, place, "labelme", overwrite=overwrite),
    )


def x_anylabeling(
    source: Sources,
    out: OutFolder,
    images: Images = "link",
    image_root: ImageRoot = None,
    partial: Partial = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """X-AnyLabeling: a JSON file beside each image, polygons grouped by object."""
    from ovsam_cli.outputs.exports.labelme import open_labelme
    from ovsam_cli.outputs.image_files import ImageSource

    place = ImageSource(images, image_root)
    run_export(
        ExportJob(source, out, partial, image_root, overwrite, quiet),
        lambda categories: open_labelme(
            out, categories, place, "x-anylabeling", overwrite=overwrite
        ),
    )


def label_studio(
    source: Sources,
    out: OutFolder,
    url_prefix: Annotated[
        str, typer.Option(help="Before each file name: where Label Studio finds the images.")
    ] = "/data/local-files/?d=",
    model_version: Annotated[str, typer.Option(help="Shown with each prediction.")] = "ovsam",
    partial: Partial = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Label Studio: tasks with brush predictions, and the labeling interface."""
    from ovsam_cli.outputs.exports.label_studio import LabelStudioOptions, open_label_studio

    options = LabelStudioOptions(url_prefix, model_version)
    run_export(
        ExportJob(source, out, partial, None, overwrite, quiet),
        lambda categories: open_label_studio(out, categories, options, overwrite=overwrite),
    )


def cvat(
    source: Sources,
    out: OutFolder,
    partial: Partial = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """CVAT: "CVAT for images 1.1" and a COCO archive, with the labels of the task."""
    from ovsam_cli.outputs.exports.cvat import open_cvat

    run_export(
        ExportJob(source, out, partial, None, overwrite, quiet),
        lambda categories: open_cvat(out, categories, overwrite=overwrite),
    )


def hf_imagefolder(
    source: Sources,
    out: OutFolder,
    images: Images = "link",
    image_root: ImageRoot = None,
    partial: Partial = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Hugging Face imagefolder: images, metadata.jsonl, a card with the types."""
    from ovsam_cli.outputs.exports.image_folder import open_image_folder
    from ovsam_cli.outputs.image_files import ImageSource

    place = ImageSource(images, image_root)
    run_export(
        ExportJob(source, out, partial, image_root, overwrite, quiet),
        lambda categories: open_image_folder(out, categories, place, overwrite=overwrite),
    )


def webdataset(
    source: Sources,
    out: OutFolder,
    images: Images = "link",
    image_root: ImageRoot = None,
    per_shard: Annotated[int, typer.Option(min=1, help="Images a tar file.")] = 1000,
    partial: Partial = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """WebDataset: tar files of images, each beside its labels as JSON."""
    from ovsam_cli.outputs.exports.webdataset import open_webdataset
    from ovsam_cli.outputs.image_files import ImageSource

    place = ImageSource(images, image_root)
    run_export(
        ExportJob(source, out, partial, image_root, overwrite, quiet),
        lambda categories: open_webdataset(
            out, categories, place, images_per_shard=per_shard, overwrite=overwrite
        ),
    )
