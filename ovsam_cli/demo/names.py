"""The names a user of the page chooses: a bundled vocabulary, or a list typed in."""

from __future__ import annotations

import re

from ovsam_cli.errors import VocabularyError
from ovsam_cli.vocabulary import Category, Vocabulary, clean_names, normalize_name, read_vocabulary

# Larger ones take minutes to encode, too long for a page that waits.
BUNDLED_CHOICES = ("coco", "demo", "voc", "ade20k", "objects365", "openimages", "lvis")
MAX_NAMES, MAX_NAME_LENGTH = 2000, 100


def choose_names(bundled: str, text: str) -> Vocabulary:
    """A bundled vocabulary, or one of the names in `text`; nothing typed is ever a file's path.

    Args:
        bundled: one of `BUNDLED_CHOICES`, or empty.
        text: names with commas or line ends between; a name given twice counts once.

    Raises:
        VocabularyError: no such vocabulary, no name, or too many or too long ones.
    """
    if bundled:
        if bundled not in BUNDLED_CHOICES:
            raise VocabularyError(
                f"no vocabulary is called {bundled!r}; there are {', '.join(BUNDLED_CHOICES)}"
            )
        return read_vocabulary(bundled)
    by_spelling: dict[str, str] = {}
    for part in re.split(r"[,\n\r]", text):
        if part.strip():
            by_spelling.setdefault(normalize_name(part), part.strip())
    if not by_spelling:
        raise VocabularyError("no name in the list; type names with commas or line ends between")
    if len(by_spelling) > MAX_NAMES:
        raise VocabularyError(f"{len(by_spelling)} names; at most {MAX_NAMES} can be typed")
    longest = max(by_spelling.values(), key=len)
    if len(longest) > MAX_NAME_LENGTH:
        raise VocabularyError(f"{longest[:40]!r}... is too long for a name ({len(longest)} signs)")
    categories = (
        Category(number, name, clean_names(name))
        for number, name in enumerate(by_spelling.values(), start=1)
    )
    return Vocabulary("own names", tuple(categories))
