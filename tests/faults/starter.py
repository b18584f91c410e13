"""Starts `ovsam` in processes of their own, many times a second: loads it once and forks.

A program, not a module of tests: requests come as JSON lines on stdin, answers go to stdout.

    {"args": [...], "setup": "...", "env": {...}, "log": "..."}   ->   {"pid": 7}
    {"wait": 7}                                                    ->   {"status": 0}

`setup` is Python code that the new process runs first. What it writes goes to the log's
`.out` and `.err`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from typing import Any

import open_clip  # what the model's parts import when they are built takes seconds
import torchvision.ops

import ovsam_cli.labelling.run
import ovsam_cli.model.text_towers
from ovsam_cli.__main__ import main

LOADED = (open_clip, torchvision.ops, ovsam_cli.labelling.run, ovsam_cli.model.text_towers)


def _run(request: dict[str, Any]) -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    for descriptor, suffix in ((1, "out"), (2, "err")):
        file = os.open(f"{request['log']}.{suffix}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.update(request["env"])
    sys.argv = ["ovsam", *(os.fsdecode(bytes.fromhex(word)) for word in request["args"])]
    code = 70
    try:
        exec(request["setup"], {"__name__": "setup"})
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    return code


def _answer(request: dict[str, Any]) -> dict[str, int]:
    if "wait" in request:
        _, status = os.waitpid(request["wait"], 0)
        return {"status": os.waitstatus_to_exitcode(status)}
    pid = os.fork()
    if pid == 0:
        code = 71
        try:
            code = _run(request)
        finally:
            os._exit(code)
    return {"pid": pid}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)
