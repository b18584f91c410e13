"""For MkDocs: links that lead out of docs/ name the file in the checkout, as text.

On a page of the repository they are links; the site has no such files.
"""

from __future__ import annotations

import re

_OUTSIDE = re.compile(r"\[([^\]]+)\]\((\.\./[^)]+)\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """`[text](../file)` becomes `text (file in the checkout)`."""
    return _OUTSIDE.sub(lambda found: _name(found[1], found[2]), markdown)


def _name(text: str, target: str) -> str:
    path = target.removeprefix("../")
    plain = text.strip("`").rstrip("/")
    return f"`{path}`" if plain in path else f"{text} (`{path}`)"
