"""Parts of a run that many machines share: which there are, and which are complete.

    OUT/part-00000.parquet           results of one part (`outputs/parquet.py`), whole or not there
    OUT/_ledger/manifest.json        settings that decide results and parts; refused if others
    OUT/_ledger/part-00000.json      that the part is complete, and its counts and errors
    OUT/_ledger/part-00000.try.json  that somebody began it, and which image ended its process
    OUT/_SUCCESS                     that all parts are complete

Only the ledger says what is done: a part without its note is labelled again, whatever else there
is. OUT may be a path or a URL; nothing is appended, renamed or locked, which stores cannot do.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from ovsam_cli.errors import InputError
from ovsam_cli.labelling.fingerprint import compare_settings
from ovsam_cli.labelling.planner import WINDOW
from ovsam_cli.outputs.folders import Folder
from ovsam_cli.outputs.json_values import JsonValue
from ovsam_cli.outputs.parquet import SUCCESS_FILE, part_name
from ovsam_cli.prompts import PromptSource
from ovsam_cli.structures import ImageRecord

LEDGER, MANIFEST_NAME = "_ledger", "_ledger/manifest.json"
LEDGER_FORMAT = "ovsam-parts-1"
PARTS_PER_WORKER = 8  # of a small run: so that no worker waits long for the last one


@dataclass(frozen=True, slots=True)
class PartJob:
    """One part to label.

    Attributes:
        number: from 0.
        first_image_id: no image of this part, or of one behind it, has a lower id.
        batches: of the whole run that belong to the part.
        prompts: of these images; None in grid mode.
    """

    number: int
    first_image_id: int
    batches: tuple[tuple[ImageRecord, ...], ...]
    prompts: PromptSource | None = None

    @property
    def num_images(self) -> int:
        """Images in all batches."""
        return sum(map(len, self.batches))


@dataclass(frozen=True, slots=True)
class PartStats:
    """What became of a part; the note of its end.

    Attributes:
        number: of the part.
        num_images, num_failed, num_objects, num_notices: counts.
        errors: rows for errors.jsonl.
        seconds: from its last beginning.
    """

    number: int
    num_images: int
    num_failed: int
    num_objects: int
    num_notices: int
    errors: list[dict[str, JsonValue]]
    seconds: float


@dataclass(slots=True)
class PartTries:
    """How often a part was begun, and whom processes ended with.

    Attributes:
        num_begun: beginnings, the present one included.
        deaths: by file name, how many processes ended while they had only this image in hand.
        in_hand: the image that is labelled alone just now.
    """

    num_begun: int = 0
    deaths: dict[str, int] = field(default_factory=dict)
    in_hand: str | None = None


class PartLedger:
    """Reads and writes the notes; several processes may hold one of the same folder."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def open(
        self, settings: Mapping[str, JsonValue], *, restart: bool, overwrite: bool
    ) -> dict[str, JsonValue]:
        """Make the folder this run's, or see that it is.

        Args:
            settings: that decide the results; those beginning with `parts.` are taken from the
                folder where it has some.
            restart: remove all parts and notes first.
            overwrite: also in a folder with other files.

        Returns:
            The settings that hold.

        Raises:
            InputError: it holds other files, or a run with other settings; they are named.
            OutputError: it cannot be written.
        """
        names = self.folder.list_names()
        if restart:
            for name in [name for name in names if _is_ours(name)]:
                self.folder.remove(name)
            names = [name for name in names if not _is_ours(name)]
        if self.folder.read(MANIFEST_NAME) is None:
            if names and not overwrite:
                raise InputError(
                    f"{self.folder.location}: is not empty and holds no parts of ovsam (found "
                    f"{names[0]!r}); choose another --out, or use this one with --overwrite"
                )
            whole = {"format": LEDGER_FORMAT, "settings": dict(settings)}
            self.folder.write(MANIFEST_NAME, json.dumps(whole, indent=1).encode() + b"\n")
            return dict(settings)
        return self._compare(settings)

    def read_settings(self) -> dict[str, JsonValue]:
        """Settings of the run that is there; empty where there is none.

        Raises:
            InputError: they are damaged.
        """
        content = self.folder.read(MANIFEST_NAME)
        if content is None:
            return {}
        try:
            return dict(json.loads(content)["settings"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.folder.location}/{MANIFEST_NAME}: cannot be read ({error}); drop that run "
                "with --restart"
            ) from error

    def _compare(self, settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        was = self.read_settings()
        kept = {name: value for name, value in was.items() if name.startswith("parts.")}
        differences = [
            f"{name}: was {before}, now {after}"
            for name, before, after in compare_settings(was, {**settings, **kept})
        ]
        if differences:
            raise InputError(
                f"{self.folder.location}: holds a run with other settings "
                f"({'; '.join(differences)}); repeat that run's settings to continue it, choose "
                "another --out, or drop its results with --restart"
            )
        return was

    def list_done(self) -> set[int]:
        """Numbers of the parts that are complete."""
        names = set(self.folder.list_names())
        numbers = (_number_of(name) for name in names if _is_note(name))
        return {number for number in numbers if part_name(number) in names}

    def read_stats(self, number: int) -> PartStats | None:
        """The note of a complete part, None where it is not."""
        content = self.folder.read(_note_name(number))
        try:
            return None if content is None else PartStats(**json.loads(content))
        except (ValueError, TypeError):
            return None  # damaged: the part is labelled again

    def finish_part(self, content: bytes, stats: PartStats) -> None:
        """Write a part, and then its note.

        Raises:
            OutputError: the folder cannot be written.
        """
        self.folder.write(part_name(stats.number), content)
        self.folder.write(_note_name(stats.number), json.dumps(asdict(stats)).encode() + b"\n")
        self.folder.remove(_try_name(stats.number))

    def forget(self, number: int) -> None:
        """Have a part labelled again."""
        self.folder.remove(SUCCESS_FILE)
        self.folder.remove(_note_name(number))

    def begin(self, number: int) -> PartTries:
        """Note that a part is begun; how that went before."""
        content = self.folder.read(_try_name(number))
        try:
            tries = PartTries() if content is None else PartTries(**json.loads(content))
        except (ValueError, TypeError):
            tries = PartTries()
        tries.num_begun += 1
        if tries.in_hand is not None:
            tries.deaths[tries.in_hand] = tries.deaths.get(tries.in_hand, 0) + 1
        self.take_in_hand(number, tries, None)
        return tries

    def take_in_hand(self, number: int, tries: PartTries, file_name: str | None) -> None:
        """Note which image is labelled alone from now on."""
        tries.in_hand = file_name
        self.folder.write(_try_name(number), json.dumps(asdict(tries)).encode() + b"\n")


def count_images_per_part(num_images: int, num_workers: int) -> int:
    """So many that ids of parts do not interlock, or fewer so that all workers have some."""
    return max(1, min(WINDOW, num_images // (num_workers * PARTS_PER_WORKER)))


def cut_parts(
    batches: Iterable[tuple[ImageRecord, ...]], *, images_per_part: int
) -> Iterator[PartJob]:
    """Planned batches of a whole run as parts, without prompts.

    A part ends with the window its batches were cut from, so that ids of later parts are higher.

    Args:
        batches: from `planner.plan_batches`.
        images_per_part: about; at most a window.
    """
    number, before = 0, 0
    waiting: list[tuple[ImageRecord, ...]] = []
    for batch in batches:
        waiting.append(batch)
        num_images = sum(map(len, waiting))
        if num_images < images_per_part and (before + num_images) % WINDOW:
            continue
        yield PartJob(number, before // WINDOW * WINDOW + 1, tuple(waiting))
        number, before, waiting = number + 1, before + num_images, []
    if waiting:
        yield PartJob(number, before // WINDOW * WINDOW + 1, tuple(waiting))


def list_ours(names: Sequence[str]) -> list[str]:
    """Those of a folder's files that are parts or notes."""
    return [name for name in names if _is_ours(name)]


def _is_ours(name: str) -> bool:
    is_part = name.startswith("part-") and name.endswith(".parquet")
    return is_part or name == SUCCESS_FILE or name.startswith(f"{LEDGER}/")


def _is_note(name: str) -> bool:
    is_note = name.startswith(f"{LEDGER}/part-") and name.endswith(".json")
    return is_note and not name.endswith(".try.json")


def _number_of(name: str) -> int:
    return int(name.partition("part-")[2].partition(".")[0])


def _note_name(number: int) -> str:
    return f"{LEDGER}/part-{number:05d}.json"


def _try_name(number: int) -> str:
    return f"{LEDGER}/part-{number:05d}.try.json"
