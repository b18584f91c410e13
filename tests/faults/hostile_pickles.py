"""Weight files that would run code in a plain pickle reader: each makes a canary file then."""

from __future__ import annotations

import functools
import importlib
import io
import os
import pickle
import subprocess
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch

Reduced = tuple[object, tuple[object, ...]]
# A module whose import alone makes the canary; it stands in a folder that Python searches.
TRAP_MODULE = "trap_module"
TRAP = "import os\nopen(os.environ['CANARY'], 'w').close()\nclass Thing: pass\n"


class Call:
    """Pickles as a call."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Reduced:
        return self.call

    def __call__(self) -> None:
        """What stands for a function in a pickle must look like one."""


class State:
    """Pickles as an object that is given a state by `__setstate__`."""

    def __init__(self, make: object, arguments: tuple[object, ...], state: object) -> None:
        self.parts = make, arguments, state

    def __reduce__(self) -> tuple[object, tuple[object, ...], object]:
        make, arguments, state = self.parts
        return make, arguments, state

    def __call__(self) -> None:
        """As above."""


def _saved(content: object, *, new_format: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=new_format)
    return buffer.getvalue()


def _in_state_dict(attack: object, *, new_format: bool = True) -> bytes:
    """Deep among honest tensors."""
    tensors = OrderedDict({"neck.weight": torch.ones(3), "pe.deep": {"list": [1, (attack,)]}})
    return _saved({"state_dict": tensors, "meta": {"attack": attack}}, new_format=new_format)


def _torchscript(attack: object) -> bytes:
    """An archive that looks like OpenAI's CLIP."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("model/constants.pkl", "model/data.pkl"):
            archive.writestr(name, pickle.dumps(attack, protocol=2))
        archive.writestr("model/version", "3\n")
    return buffer.getvalue()


def _stack_global(module: str, name: str, argument: str) -> bytes:
    """Protocol 4, whose names come from the stack, wrapped as torch's zip file."""
    short = pickle.SHORT_BINUNICODE
    words = [short + bytes([len(word)]) + word.encode() for word in (module, name, argument)]
    stream = (
        *(pickle.PROTO + b"\x04", words[0], words[1], pickle.STACK_GLOBAL),
        *(words[2], pickle.TUPLE1, pickle.REDUCE, pickle.STOP),
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"".join(stream))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


def make_hostile_files(canary: Path) -> dict[str, bytes]:
    """By name: the files' contents. Unpickled plainly, each makes `canary`."""
    touch = f"touch {canary}"
    system = Call(os.system, touch)
    python = f"open({str(canary)!r}, 'w').close()"
    by_getattr = Call(Call(getattr, Call(importlib.import_module, "os"), "system"), touch)
    trap = b"\x80\x02c" + TRAP_MODULE.encode() + b"\nThing\n)\x81."
    dumped: Callable[[object], bytes] = pickle.dumps
    return {
        "system": _in_state_dict(system),
        "system-old-format": _in_state_dict(system, new_format=False),
        "getattr": _in_state_dict(by_getattr),
        "eval": _in_state_dict(Call(eval, python)),
        "exec-alone": _saved(Call(exec, python)),
        "torch-load-from-bytes": _in_state_dict(
            Call(torch.storage._load_from_bytes, _saved(system, new_format=False))
        ),
        "pickle-in-pickle": _in_state_dict(Call(pickle.loads, pickle.dumps(system))),
        "setstate": _in_state_dict(
            Call(State(functools.partial, (print,), (os.system, (touch,), {}, None)))
        ),
        "subprocess": _in_state_dict(Call(subprocess.check_call, ["touch", str(canary)])),
        "stack-global": _stack_global("posix", "system", touch),
        "dotted-name": _stack_global("torch._utils", "os.system", touch),
        "import": trap,
        "plain-pickle": dumped(system),
        "torchscript": _torchscript(system),
        "torchscript-import": _torchscript(by_getattr),
    }
