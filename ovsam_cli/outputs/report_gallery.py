"""The gallery of a report: single objects with their picture, to be ordered and filtered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from ovsam_cli.outputs.report_sample import RunStatistics, Sample
from ovsam_cli.outputs.report_thumbnails import Thumbnail

Gallery = Sequence[tuple[Sample, Thumbnail | None]]

# What a person can order the gallery by: data attribute of a card, `-` for the greatest first.
ORDERS = {
    "margin": "most uncertain first",
    "-margin": "most certain first",
    "score": "lowest score first",
    "stability": "least stable mask first",
    "-area": "largest first",
    "area": "smallest first",
    "name": "name",
    "file": "image",
}


def iter_gallery(
    statistics: RunStatistics, gallery: Gallery, names: Mapping[int, str]
) -> Iterator[str]:
    """The section in pieces: its pictures may have several MB."""
    if not gallery:
        yield "<section><h2>Gallery</h2><p>No object was found.</p></section>"
        return
    found = sorted({names.get(one.category_id, str(one.category_id)) for one, _ in gallery})
    num_random = sum(sample.is_random for sample, _ in gallery)
    about = f"All {len(gallery):,} objects"
    if len(gallery) < statistics.num_objects:
        about = (
            f"{len(gallery) - num_random:,} of the most uncertain and {num_random:,} random ones "
            f"of {statistics.num_objects:,} objects"
        )
    yield (
        f"<section><h2>Gallery</h2><p>{about}, the most uncertain first.</p>"
        f"{_render_controls(found)}"
        f'<p id="shown" aria-live="polite">{len(gallery):,} shown</p>\n<ul id="gallery">'
    )
    for sample, picture in gallery:
        yield _render_card(sample, picture, names)
    yield (
        '</ul><dialog id="large" aria-label="Object"><button id="close" aria-label="Close">&times;'
        '</button><div id="content"></div></dialog></section>'
    )


def _render_controls(found: Sequence[str]) -> str:
    orders = "".join(f'<option value="{key}">{text}</option>' for key, text in ORDERS.items())
    names = "".join(f"<option>{escape(name)}</option>" for name in found)
    return (
        '<form class="controls" aria-label="Order and filter">'
        f'<label>Order<select id="order">{orders}</select></label>'
        f'<label>Name<select id="name"><option value="">all</option>{names}</select></label>'
        '<label>Objects<select id="kind"><option value="">all</option>'
        '<option value="uncertain">uncertain</option><option value="random">random</option>'
        "</select></label>"
        '<label><span>Margin up to <output id="most">1.00</output></span>'
        '<input id="margin" type="range" min="0" max="1" step="0.01" value="1"></label>'
        '<label>Find<input id="find" type="search" placeholder="image or name"></label></form>'
    )


def _render_card(sample: Sample, picture: Thumbnail | None, names: Mapping[int, str]) -> str:
    name = escape(names.get(sample.category_id, str(sample.category_id)))
    file_name = escape(sample.record.file_name)
    image = '<span class="gone">image not there</span>'
    if picture is not None:
        image = (
            f'<img src="data:image/jpeg;base64,{picture.data}" width="{picture.width}" '
            f'height="{picture.height}" alt="{name} in {file_name}">'
        )
    best = "".join(
        f'<li><span>{escape(other)}</span><i style="width:{100 * max(probability, 0.005):.1f}%">'
        f"</i><b>{probability:.2f}</b></li>"
        for other, probability in sample.topk
    )
    kind = "random" if sample.is_random else "uncertain"
    return (
        f'<li data-margin="{sample.margin:.4f}" data-score="{sample.score:.4f}" '
        f'data-stability="{sample.stability_score:.4f}" data-area="{sample.area_share:.3g}" '
        f'data-name="{name}" data-file="{file_name}" data-kind="{kind}"><button type="button">'
        f'<span class="picture">{image}</span><span class="line"><b>{name}</b>'
        f"<span>{sample.score:.2f}</span></span>"
        f'<span class="line faint"><span>{file_name}</span><span>margin {sample.margin:.2f}</span>'
        f'</span></button><ol class="best">{best}</ol><p class="about">prompt '
        f"{escape(str(sample.prompt_id))}, stability {sample.stability_score:.2f}, "
        f"{100 * sample.area_share:.2g} % of the image</p></li>\n"
    )
