"""What can be named: categories with ids and synonyms, and the text embeddings made of them."""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ovsam_cli.errors import VocabularyError
from ovsam_cli.remote import is_url, open_location, parse_location
from ovsam_cli.structures import IntArray

Naming = Literal["clean", "reference"]
BUNDLED_NAMES = (
    "coco", "lvis", "imagenet1k", "in21k", "objects365", "openimages", "ade20k", "voc", "demo",
)  # fmt: skip
_PARENTHESIS_THEN_MORE = re.compile(r"^(.*\([^()]*\)) (.+)$")
_JSON_NAME = re.compile(r'"name"\s*:')
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclass(frozen=True, slots=True)
class Category:
    """One thing that can be named.

    Attributes:
        id: the data set's own id, the `category_id` of the output.
        name: the user's spelling, written to the output byte for byte.
        synonyms: one or more names for the text tower; the best one counts.
        frequency: LVIS's `r`, `c` or `f`, else empty.
        base: seen (True) or held out (False) in the published training; None if neither.
    """

    id: int
    name: str
    synonyms: tuple[str, ...]
    frequency: str = ""
    base: bool | None = None


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """K categories; row k of every text embedding and class logit is `categories[k]`."""

    name: str
    categories: tuple[Category, ...]
    source: str = ""
    licence: str = ""

    def __len__(self) -> int:
        return len(self.categories)

    @property
    def names(self) -> tuple[str, ...]:
        """(K,) names as written to the output."""
        return tuple(category.name for category in self.categories)

    @property
    def ids(self) -> tuple[int, ...]:
        """(K,) category ids."""
        return tuple(category.id for category in self.categories)

    @property
    def text_names(self) -> tuple[str, ...]:
        """Every distinct name for the text tower, in the order of first use."""
        return tuple(dict.fromkeys(name for c in self.categories for name in c.synonyms))

    def sha256(self) -> str:
        """Hash of all that can change a result: ids, names, synonyms, flags, order."""
        rows = json.dumps([list(asdict(category).values()) for category in self.categories])
        return hashlib.sha256(rows.encode()).hexdigest()

    def kind_for(self, trained_names: Iterable[str]) -> IntArray:
        """Which categories a model was trained on, by any of their normalized names.

        Returns:
            (K,) int64: 1 base (among `trained_names`), 2 novel.
        """
        trained = {normalize_name(name) for name in trained_names}
        seen = [
            any(normalize_name(name) in trained for name in (category.name, *category.synonyms))
            for category in self.categories
        ]
        return np.where(seen, 1, 2).astype(np.int64)

    def benchmark_kinds(self) -> IntArray:
        """(K,) int64 of the published protocol's own split: 1 base, 2 novel, 0 neither."""
        return np.array([{True: 1, False: 2, None: 0}[c.base] for c in self.categories], np.int64)


def normalize_name(name: str) -> str:
    """Two spellings of one name give one string: case, underscores and spaces do not count."""
    return " ".join(name.replace("_", " ").lower().split())


def clean_names(name: str) -> tuple[str, ...]:
    """The names hidden in one class name, as a text tower should read them.

    Commas, slashes and `_or_` part alternatives, but not inside parentheses; what follows a
    closing parenthesis is a name of its own: `monitor_(computer_equipment) computer_monitor`.
    """
    pieces, depth = [""], 0
    for part in re.split(r"([(),/]|_or_)", name):
        depth += (part == "(") - (part == ")")
        if part in {",", "/", "_or_"} and depth <= 0:
            pieces.append("")
        else:
            pieces[-1] += part
    found: list[str] = []
    for piece in map(normalize_name, pieces):
        match = _PARENTHESIS_THEN_MORE.match(piece)
        found += list(match.groups()) if match else [piece]
    return tuple(dict.fromkeys(piece for piece in found if piece)) or (normalize_name(name),)


def reference_names(name: str) -> tuple[str, ...]:
    """The names as the paper's code splits them, its accident included (spec 9 and 1.4).

    The split also cuts inside parentheses: `tape_(sticky_cloth_or_paper)` gives two halves.
    """
    plain = name.replace("_or_", ",").replace("/", ",").replace("_", " ").lower()
    return tuple(piece.strip() for piece in plain.split(","))


def read_vocabulary(spec: str, naming: Naming = "clean") -> Vocabulary:
    """Read a vocabulary.

    Args:
        spec: bundled names joined by `+`; or, also by URL, a `.txt` file (one category a line,
            synonyms after commas, `#` starts a comment) or a `.json` file (names, or objects with
            `name` and optionally `id`, `synonyms`, `frequency`, `base`: a COCO or LVIS file will
            do); or the names themselves: `cat, dog, zebra`.
        naming: how class names become names for the text tower: `clean_names`, or
            `reference_names` for published text embeddings.

    Raises:
        VocabularyError: nothing such exists, or a name is empty or given twice.
    """
    if all(part in BUNDLED_NAMES for part in spec.strip().split("+")):
        return _joined(spec.strip(), [_read_bundled(p, naming) for p in spec.strip().split("+")])
    is_file = spec.lower().endswith((".txt", ".json")) or ("," not in spec and Path(spec).is_file())
    if is_file or is_url(spec):
        return _read_file(parse_location(spec), naming)
    if "," in spec:
        return _parse_inline(spec, naming)
    raise VocabularyError(
        f"vocabulary {spec!r}: neither bundled ({', '.join(BUNDLED_NAMES)}) nor a .txt or .json "
        f"file; names given directly end or part with a comma: '{spec},'"
    )


def resolve_trained_names(references: Iterable[str]) -> tuple[str, ...]:
    """Names a model was trained on; `lvis:base` stands for that vocabulary's base categories."""
    names: list[str] = []
    for reference in references:
        bundled, _, part = reference.partition(":")
        if part not in {"base", "all"} or bundled not in BUNDLED_NAMES:
            names.append(reference)
            continue
        for category in read_vocabulary(bundled).categories:
            if part == "all" or category.base:
                names += [category.name, *category.synonyms]
    return tuple(dict.fromkeys(names))


def _read_bundled(name: str, naming: Naming) -> Vocabulary:
    package = Path(__file__).parent
    installed, checkout = package / "vocabularies", package.parent / "vocabularies"
    folder = installed if installed.is_dir() else checkout
    return replace(_read_file(folder / f"{name}.json", naming), name=name)


def _joined(name: str, parts: Sequence[Vocabulary]) -> Vocabulary:
    if len(parts) == 1:
        return parts[0]
    categories = list(parts[0].categories)
    for part in parts[1:]:
        known = {normalize_name(text) for c in categories for text in (c.name, *c.synonyms)}
        for category in part.categories:
            if normalize_name(category.name) not in known and category.synonyms[0] not in known:
                categories.append(category)
    numbered = (replace(category, id=number) for number, category in enumerate(categories, 1))
    source, licence = " | ".join(p.source for p in parts), " | ".join(p.licence for p in parts)
    return Vocabulary(name, tuple(numbered), source, licence)


def _read_file(location: Path | str, naming: Naming) -> Vocabulary:
    path = Path(location)
    try:
        with open_location(location) as file:
            text = file.read().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise VocabularyError(f"{path}: cannot be read as a UTF-8 text file: {error}") from error
    if path.suffix.lower() == ".json":
        return _parse_json(path, text, naming)
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        content = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        if content:
            fields = tuple(field.strip() for field in content.split(","))
            entries.append(_Entry(f"{path}:{number}", fields[0], fields[1:]))
    return Vocabulary(path.stem, _checked(entries, naming, str(path)), source=path.name)


def _parse_inline(spec: str, naming: Naming) -> Vocabulary:
    fields = [field.strip() for field in spec.rstrip().removesuffix(",").split(",")]
    entries = [_Entry(f"{spec!r}: name {n}", field) for n, field in enumerate(fields, 1)]
    return Vocabulary("inline", _checked(entries, naming, repr(spec)), source="inline")


@dataclass(frozen=True, slots=True)
class _Entry:
    """One category as written in a file, before anything is checked or derived."""

    place: str
    name: str
    synonyms: tuple[str, ...] = ()
    id: int | None = None
    frequency: str = ""
    base: bool | None = None
    text_names: tuple[str, ...] = ()
    reference: str = ""

    def names_for(self, naming: Naming) -> tuple[str, ...]:
        if naming == "reference":
            return reference_names(self.reference or ",".join((self.name, *self.synonyms)))
        derived = (*clean_names(self.name), *map(normalize_name, self.synonyms))
        return self.text_names or tuple(dict.fromkeys(derived))


def _parse_json(path: Path, text: str, naming: Naming) -> Vocabulary:
    try:
        content: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise VocabularyError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    about: Mapping[str, object] = content if isinstance(content, dict) else {}
    rows = about.get("categories") if about else content
    if not isinstance(rows, list):
        raise VocabularyError(f"{path}: expected a list of names, or one under 'categories'")
    pattern = _JSON_STRING if rows and isinstance(rows[0], str) else _JSON_NAME
    found = pattern.finditer(text, max(text.find('"categories"'), 0))
    breaks = [match.start() for match in re.finditer("\n", text)]
    lines = [bisect_left(breaks, match.start()) + 1 for match in found]
    lines += [1] * len(rows)  # a row without a name: refused below, the number is in the message
    entries = [
        _json_entry(f"{path}:{line} (category {number})", row)
        for number, (line, row) in enumerate(zip(lines, rows, strict=False), 1)
    ]
    categories = _checked(entries, naming, str(path))
    source = str(about.get("source", path.name))
    return Vocabulary(path.stem, categories, source, str(about.get("licence", "")))


def _json_entry(place: str, row: object) -> _Entry:
    fields = {"name": row} if isinstance(row, str) else row
    if not isinstance(fields, dict) or not isinstance(fields.get("name"), str):
        raise VocabularyError(f'{place}: expected a name or {{"name": ...}}, found {row!r:.80}')
    number, base = fields.get("id"), fields.get("base")
    if isinstance(number, bool) or not (number is None or isinstance(number, int)):
        raise VocabularyError(f"{place}: id must be a whole number, found {number!r}")
    if not (base is None or isinstance(base, bool)):
        raise VocabularyError(f"{place}: base must be true or false, found {base!r}")
    lists = {}
    for key in ("synonyms", "text_names"):
        names = fields.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise VocabularyError(f"{place}: {key} must be a list of names, found {names!r:.80}")
        lists[key] = tuple(names)
    frequency, reference = str(fields.get("frequency", "")), str(fields.get("reference", ""))
    synonyms, texts = lists["synonyms"], lists["text_names"]
    return _Entry(place, fields["name"], synonyms, number, frequency, base, texts, reference)


def _checked(entries: Sequence[_Entry], naming: Naming, where: str) -> tuple[Category, ...]:
    if not entries:
        raise VocabularyError(f"{where}: no category in it; give one name a line")
    without_id = [entry.place for entry in entries if entry.id is None]
    if 0 < len(without_id) < len(entries):
        raise VocabularyError(f"{without_id[0]}: no id, but other categories have one")
    places: dict[str, str] = {}
    categories = []
    for number, entry in enumerate(entries, 1):
        if not all(name.strip() for name in (entry.name, *entry.synonyms, *entry.text_names)):
            raise VocabularyError(f"{entry.place}: empty name; write a name or drop the comma")
        identity = number if entry.id is None else entry.id
        for key, what in (("name " + normalize_name(entry.name), repr(entry.name)),
                          (f"id {identity}", f"id {identity}")):  # fmt: skip
            first_place = places.setdefault(key, entry.place)
            if first_place is not entry.place:
                raise VocabularyError(f"{entry.place}: {what} again, first at {first_place}")
        synonyms = entry.names_for(naming)
        categories.append(Category(identity, entry.name, synonyms, entry.frequency, entry.base))
    return tuple(categories)
