"""`ovsam embed-vocab`: names to a file of text embeddings."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ovsam_cli.cli.console import Console, one_line_errors

if TYPE_CHECKING:
    from ovsam_cli.vocabulary import Vocabulary

SECONDS_BETWEEN_LINES = 10.0
Naming = Literal["clean", "reference"]


def embed_vocab(
    vocabulary: Annotated[
        str, typer.Argument(help='Bundled name (coco, lvis, ...), file, or "cat, dog, zebra".')
    ],
    model: Annotated[
        str, typer.Option(help="rn50x16, tiny, or a weights file or folder.")
    ] = "rn50x16",
    templates: Annotated[
        str,
        typer.Option(
            help="Sentence patterns: auto (the model's own), vild (14), plain (the name alone), "
            "imagenet80, or a text file with one pattern a line, {} for the name."
        ),
    ] = "auto",
    naming: Annotated[
        Naming, typer.Option(help="clean, or reference: split names as the paper's code does.")
    ] = "clean",
    out: Annotated[
        Path | None, typer.Option(help="File to write; default: NAME.MODEL.safetensors here.")
    ] = None,
    devices: Annotated[str, typer.Option(help="auto, cpu, mps, cuda, cuda:0.")] = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors only.")] = False,
) -> None:
    """Encode the names of a vocabulary; names encoded before come from the cache."""
    console = Console(quiet=quiet)
    with one_line_errors(console, how_to_resume="Names encoded so far are in the cache."):
        from ovsam_cli.errors import InputError
        from ovsam_cli.vocabulary import read_vocabulary

        names = read_vocabulary(vocabulary, naming)
        target = out or Path(f"{names.name}.{Path(model).stem}.safetensors")
        if target.suffix != ".safetensors" or not target.parent.is_dir():
            raise InputError(f"{target}: --out must be a .safetensors file in a folder that exists")
        console.result(_embed(console, names, model, templates, devices, target))


def _embed(
    console: Console, names: Vocabulary, model: str, templates: str, devices: str, target: Path
) -> str:
    """Encode and write; returns the line for stdout."""
    from ovsam_cli.labelling.device import choose_device
    from ovsam_cli.labelling.text_embeddings import build_text_embeddings
    from ovsam_cli.model.hub import cache_folder
    from ovsam_cli.model.text_towers import load_text_tower

    patterns = _read_patterns(templates)
    encoder = load_text_tower(model, device=choose_device(devices), on_message=console.say)
    started = time.monotonic()
    embeddings = build_text_embeddings(
        names,
        encoder,
        templates=patterns,
        cache_dir=cache_folder(),
        on_progress=_progress_lines(console),
    )
    embeddings.save(target)
    categories, synonyms, dim = embeddings.array.shape
    return (
        f"{target}: {categories} categories x {synonyms} names x {dim} ({embeddings.text_tower}, "
        f"{len(embeddings.templates)} templates, {time.monotonic() - started:.1f} s, "
        f"hash {embeddings.text_hash[:12]})"
    )


def _read_patterns(templates: str) -> tuple[str, ...] | None:
    from ovsam_cli.labelling.text_embeddings import read_templates
    from ovsam_cli.model.text_encoder import (
        PLAIN_TEMPLATES,
        VILD_TEMPLATES,
        imagenet_templates,
    )

    match templates:
        case "auto":
            return None
        case "vild":
            return VILD_TEMPLATES
        case "plain":
            return PLAIN_TEMPLATES
        case "imagenet80":
            return imagenet_templates()
    return read_templates(Path(templates))


def _progress_lines(console: Console) -> Callable[[int, int], None]:
    last_line = time.monotonic()

    def on_progress(done: int, total: int) -> None:
        nonlocal last_line
        if time.monotonic() - last_line > SECONDS_BETWEEN_LINES:
            last_line = time.monotonic()
            console.say(f"{done}/{total} names encoded")

    return on_progress
