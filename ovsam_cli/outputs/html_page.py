"""Pages that are one file and need nothing else, and the small parts of their charts."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Iterator

# Colors and text of every page; `--s0` to `--s5` are told apart in both schemes.
STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f6f7f9; --ink: #1c2330;
  --faint: #667085; --grid: #d9dde4; --s0: #1d4ed8; --s1: #c2410c; --s2: #047857; --s3: #be185d;
  --s4: #7c3aed; --s5: #0e7490; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161d; --card: #1a2029; --ink: #e6e9ef;
  --faint: #98a2b3; --grid: #323b49; --s0: #7aa2ff; --s1: #ff9d5c; --s2: #4fd1a1; --s3: #ff8fb8;
  --s4: #bda4ff; --s5: #5fd0e6; } }
body { margin: 0; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.3rem; margin: 0; } h2 { font-size: 1rem; margin: 0 0 .4rem; }
section { background: var(--card); border-radius: 8px; padding: .9rem; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--faint); font-size: 11px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
"""


def render_page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole HTML document.

    Args:
        title: plain text.
        body: HTML below `<body>`.
        style: CSS behind `STYLE`.
        script: JavaScript at the end of the page; none is put there where it is empty.
    """
    return "".join(iter_page(title, [body], style=style, script=script))


def iter_page(
    title: str, body: Iterable[str], *, style: str = "", script: str = ""
) -> Iterator[str]:
    """`render_page` piece by piece, for pages with many pictures in them."""
    yield (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}{style}</style></head>\n<body>"
    )
    yield from body
    yield f"{f'<script>{script}</script>' if script else ''}</body></html>\n"


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers in [low, high], where low is less than high."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    width = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.ceil(low / width), math.floor(high / width)
    return [number * width for number in range(first, last + 1)]


def short_number(value: float) -> str:
    """A number for an axis: 12000 as 12k, small ones with few digits."""
    if abs(value) >= 10_000:
        return f"{value / 1000:.4g}k"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-").replace(".0e", "e")
    return f"{value:.4g}"
