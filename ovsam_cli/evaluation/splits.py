"""Which names of a data set are base and novel, and how frequent they are; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ovsam_cli.vocabulary import Vocabulary, normalize_name, read_vocabulary

BASE, NOVEL, NEITHER = 1, 2, 0
PUBLISHED = ("coco", "lvis")  # vocabularies whose splits are those of the paper


@dataclass(frozen=True, slots=True)
class NameSplit:
    """Groups of category ids.

    Attributes:
        name: of the vocabulary that splits them; None for no split.
        kinds: 1 base, 2 novel, 0 neither, of each category id.
        frequencies: `r`, `c`, `f` or nothing, of each category id.
    """

    name: str | None
    kinds: dict[int, int]
    frequencies: dict[int, str]

    @staticmethod
    def find(
        spec: str, names: Mapping[int, str], frequencies: Mapping[int, str] | None = None
    ) -> NameSplit:
        """Split the categories of a data set.

        Args:
            spec: a vocabulary with base and novel names; `none`; or `auto`, the paper's split of
                COCO or LVIS for a data set that has exactly its names.
            names: of each category id.
            frequencies: as the data set says; else the vocabulary's count.

        Raises:
            VocabularyError: no such vocabulary.
        """
        given = {number: text for number, text in (frequencies or {}).items() if text}
        vocabulary = _find_vocabulary(spec, names)
        if vocabulary is None:
            return NameSplit(None, dict.fromkeys(names, NEITHER), given)
        rows = match_names(names, vocabulary)
        kinds = vocabulary.benchmark_kinds()
        found = {
            number: vocabulary.categories[row].frequency
            for number, row in rows.items()
            if row >= 0 and vocabulary.categories[row].frequency
        }
        return NameSplit(
            vocabulary.name,
            {number: int(kinds[row]) if row >= 0 else NEITHER for number, row in rows.items()},
            found | given,
        )


def match_names(names: Mapping[int, str], vocabulary: Vocabulary) -> dict[int, int]:
    """Row of the vocabulary for each category id: by name, else by synonym, else -1."""
    rows = {normalize_name(name): row for row, name in enumerate(vocabulary.names)}
    for row, category in enumerate(vocabulary.categories):
        for synonym in category.synonyms:
            rows.setdefault(normalize_name(synonym), row)
    return {number: rows.get(normalize_name(name), -1) for number, name in names.items()}


def _find_vocabulary(spec: str, names: Mapping[int, str]) -> Vocabulary | None:
    if spec == "none":
        return None
    if spec != "auto":
        return read_vocabulary(spec)
    for published in PUBLISHED:
        vocabulary = read_vocabulary(published)
        if len(vocabulary) == len(names) and -1 not in match_names(names, vocabulary).values():
            return vocabulary
    return None
