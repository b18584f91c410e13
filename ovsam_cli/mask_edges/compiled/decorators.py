"""Numba's decorators, typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import numba

_Given = ParamSpec("_Given")
_Returned = TypeVar("_Returned")


def compiled(function: Callable[_Given, _Returned]) -> Callable[_Given, _Returned]:
    """Compile at the first call; kept on disk, runs without the GIL."""
    found: Callable[_Given, _Returned] = numba.njit(cache=True, nogil=True, error_model="numpy")(
        function
    )
    return found


def inlined(function: Callable[_Given, _Returned]) -> Callable[_Given, _Returned]:
    """The same for what is called for each change: a call counts references to all its arrays."""
    found: Callable[_Given, _Returned] = numba.njit(inline="always", error_model="numpy")(function)
    return found
