"""`-v`, of every command that has `-q`: unseen settings before, time, versions and memory after."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from ovsam_cli import __version__
from ovsam_cli.cli.config_file import describe_settings
from ovsam_cli.cli.console import Console

if TYPE_CHECKING:
    from typer._click import Context

_TOLD = ("torch", "numpy")  # where they were used


@contextmanager
def tell_more(ctx: Context) -> Iterator[None]:
    """Say on stderr what a command begins with and, however it ends, what it took.

    Args:
        ctx: of the running command.
    """
    console = Console(
        quiet=bool(ctx.params.get("quiet")), verbose=True, as_json=bool(ctx.params.get("as_json"))
    )
    set_by = describe_settings(ctx)["set_by"]
    for name, source in set_by.items() if isinstance(set_by, Mapping) else ():
        if source != "flag":
            console.detail(f"{name} is set by the {source}")
    try:
        yield
    finally:
        used = [f"ovsam {__version__}", *_list_versions()]
        peak = read_peak_bytes()
        memory = f", at most {peak / 2**20:,.0f} MiB of memory" if peak else ""
        seconds = time.monotonic() - console.started
        console.detail(f"{seconds:.1f} s{memory}; {', '.join(used)}")


def _list_versions() -> Iterator[str]:
    for package in _TOLD:
        if package in sys.modules:
            try:
                yield f"{package} {version(package)}"
            except PackageNotFoundError:  # on the path, not installed
                continue


def read_peak_bytes() -> int:
    """Most memory that this process has held; 0 where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
