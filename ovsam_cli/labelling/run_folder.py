"""The output folder of a run: whose it is, and who writes to it now."""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from ovsam_cli.errors import InputError, OutputError
from ovsam_cli.outputs.files import output_error

if sys.platform != "win32":
    import fcntl

STATE_FOLDER = ".ovsam"
LOCK_FILE = "lock.json"

# What systems put into folders by themselves; a folder with nothing else counts as empty.
SYSTEM_ENTRIES = {"lost+found", ".DS_Store", "Thumbs.db", "desktop.ini"}


def prepare_output(out: Path, *, overwrite: bool = False) -> RunLock:
    """Make the output folder if need be, refuse a foreign one, and lock it for this process.

    Call it before anything slow: it finds every fault of the folder that can be found early.

    Args:
        out: the run's output folder.
        overwrite: write also into a folder that holds files but no run of ours; files of other
            names stay.

    Returns:
        The lock; release it (or leave its `with` block) when the run ends.

    Raises:
        InputError: `out` is a file, cannot be written, or holds something that is not a run of
            ours.
        OutputError: another run is writing to it.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file, but the output is a folder; choose another --out")
    state = out / STATE_FOLDER
    try:
        is_ours = state.is_dir()
        foreign = [] if is_ours or not out.is_dir() else sorted(os.listdir(out))
        foreign = [name for name in foreign if name not in SYSTEM_ENTRIES]
        if foreign and not overwrite:
            raise InputError(
                f"{out}: is not empty and holds no run of ovsam (found {foreign[0]!r}"
                f"{f' and {len(foreign) - 1} more' if len(foreign) > 1 else ''}); "
                "choose an empty or new folder, or write into this one with --overwrite"
            )
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written: {error.strerror or error}; choose another --out or "
            "mend its permissions"
        ) from error
    return RunLock.acquire(out)


@dataclass(frozen=True, slots=True)
class LockOwner:
    """Who holds a lock; enough to tell a living process from one that took its number later.

    Attributes:
        host: network name of the machine.
        boot_id: the machine's boot, empty where the system does not tell.
        pid: process number.
        started: the process's start in clock ticks since boot, empty where unknown.
    """

    host: str
    boot_id: str
    pid: int
    started: str

    @staticmethod
    def current() -> LockOwner:
        """This process."""
        pid = os.getpid()
        return LockOwner(socket.gethostname(), _boot_id(), pid, _process_start(pid) or "")

    def may_be_alive(self, *, record_lock_is_ours: bool) -> bool:
        """False only when the owner is proved dead.

        Args:
            record_lock_is_ours: the system gave us the record lock, which on one machine proves
                that the owner no longer has it.
        """
        here = LockOwner.current()
        if self.boot_id != here.boot_id:
            return self.host != here.host  # another machine, or this one before it was restarted
        if self.host != here.host:
            return not record_lock_is_ours  # another container: its process numbers mean nothing
        started = _process_start(self.pid)
        if started is None:
            return _process_exists(self.pid)
        return started != "" and started == self.started


class RunLock:
    """The right to write to an output folder; a context manager.

    Two guards. The system's record lock ends with its process (and is not inherited by the
    workers it forked, unlike flock), so nothing stale stands in the way after kill -9. The owner
    written in the file names who holds it, and still guards where record locks are not kept
    between machines (some network folders).
    """

    def __init__(self, out: Path, descriptor: int) -> None:
        self.out = out
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, out: Path) -> RunLock:
        """Take the lock at once or fail; a dead owner's lock is taken over.

        Args:
            out: an output folder that already has its state folder.

        Raises:
            OutputError: another run holds the lock (its host and process are named), or the
                lock file cannot be written.
        """
        path = out / STATE_FOLDER / LOCK_FILE
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise output_error(path, error) from error
        try:
            record_lock = _take_record_lock(descriptor)
            owner = _read_owner(descriptor)
            is_ours = record_lock == "ours"
            if record_lock == "held" or (
                owner is not None and owner.may_be_alive(record_lock_is_ours=is_ours)
            ):
                raise OutputError(_held_message(out, path, owner))
            _write_owner(descriptor, LockOwner.current())
        except OSError as error:
            os.close(descriptor)
            raise output_error(path, error) from error
        except OutputError:
            os.close(descriptor)
            raise
        return cls(out, descriptor)

    def release(self) -> None:
        """Give the lock back; a second call does nothing."""
        if self._descriptor is None:
            return
        # The file stays: removing it would let a third process lock a file nobody else sees.
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)
        self._descriptor = None

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _held_message(out: Path, path: Path, owner: LockOwner | None) -> str:
    if owner is None:
        return f"{out}: another run is writing to this folder; wait for it or choose another --out"
    advice = "wait for it, stop it, or choose another --out"
    if owner.host != socket.gethostname():
        advice += f"; if that process has ended, delete {path}"
    return (
        f"{out}: another run is writing to this folder "
        f"(process {owner.pid} on host {owner.host}); {advice}"
    )


def _take_record_lock(descriptor: int) -> Literal["ours", "held", "unsupported"]:
    if sys.platform == "win32":
        return "unsupported"
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return "held"
    except OSError:
        return "unsupported"
    return "ours"


def _read_owner(descriptor: int) -> LockOwner | None:
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        fields = json.loads(os.read(descriptor, 4096))
        return LockOwner(
            str(fields["host"]), str(fields["boot_id"]), int(fields["pid"]), str(fields["started"])
        )
    except (ValueError, KeyError, TypeError):
        return None  # empty (released), or torn by a power cut


def _write_owner(descriptor: int, owner: LockOwner) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(asdict(owner)).encode() + b"\n")
    os.fsync(descriptor)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _process_start(pid: int) -> str | None:
    """Start of a running process, "" when it has ended; None where the system has no /proc."""
    if not Path("/proc/self/stat").exists():
        return None
    try:
        # The name in field 2 may hold spaces and brackets, hence the cut at the last bracket.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return ""
    state, started = fields[0], fields[19]
    return "" if state in "ZX" else started  # a zombie no longer writes


def _process_exists(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # os.kill(pid, 0) would end the process there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
