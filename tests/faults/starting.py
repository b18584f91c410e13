"""The tests' side of `starter.py`: real processes of `ovsam`, started fast."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

STARTER = Path(__file__).parent / "starter.py"
# A child of a fork has one thread; libraries that had started more would wait for them for ever.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: killed by that signal), and what it wrote."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass
class Process:
    """A running `ovsam`."""

    starter: Starter
    pid: int
    log: Path
    started: float = field(default_factory=time.monotonic)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    @property
    def is_running(self) -> bool:
        state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX"

    def wait(self, timeout: float = 60.0) -> Ended:
        """Wait for its end; a process that takes longer is killed, and the test fails."""
        timer = threading.Timer(timeout, os.kill, (self.pid, signal.SIGKILL))
        timer.start()
        try:
            code = self.starter.ask({"wait": self.pid})["status"]
        finally:
            timer.cancel()
        ended = Ended(
            code,
            self.log.with_suffix(".out").read_text(errors="surrogateescape"),
            self.log.with_suffix(".err").read_text(errors="surrogateescape"),
            time.monotonic() - self.started,
        )
        assert ended.seconds < timeout, f"hung for {timeout} s: {ended.err}"
        return ended


class Starter:
    """Starts processes; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = count()

    def __enter__(self) -> Starter:
        self._server = subprocess.Popen(
            [sys.executable, str(STARTER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | ONE_THREAD | {"OVSAM_CACHE": str(self._folder / "cache")},
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(30)
        self._server.stdout.close()

    def ask(self, request: dict[str, object]) -> dict[str, int]:
        assert self._server.stdin is not None and self._server.stdout is not None
        print(json.dumps(request), file=self._server.stdin, flush=True)
        answer: dict[str, int] = json.loads(self._server.stdout.readline())
        return answer

    def start(
        self, args: Sequence[str | Path], *, setup: str = "", env: dict[str, str] | None = None
    ) -> Process:
        """Start `ovsam` with these arguments, `setup` (Python code) first."""
        log = self._folder / f"log-{next(self._numbers)}"
        request: dict[str, object] = {
            "args": [os.fsencode(word).hex() for word in args],
            "setup": setup,
            "env": env or {},
            "log": str(log),
        }
        return Process(self, self.ask(request)["pid"], log.with_suffix(".log"))

    def run(
        self,
        args: Sequence[str | Path],
        *,
        setup: str = "",
        env: dict[str, str] | None = None,
        timeout: float = 60.0,
    ) -> Ended:
        """Start and wait."""
        return self.start(args, setup=setup, env=env).wait(timeout)
