"""Listening on a port until told to stop."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ovsam_cli.errors import InputError, OutputError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

DEFAULT_PORT = 8765
SECONDS_TO_CLOSE = 2  # for answers under way
POLL_SECONDS = 0.1
MAX_CONNECTIONS = 64


def open_port(host: str, port: int | None) -> socket.socket:
    """A socket that listens.

    Args:
        host: address to listen on.
        port: 0 is any free one; None is `DEFAULT_PORT`, or any free one where that is taken.

    Raises:
        InputError: the port is taken, or the address is none of this machine.
    """
    wanted = DEFAULT_PORT if port is None else port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, wanted), family=family)
    except OSError as error:
        if port is None and error.errno == errno.EADDRINUSE:
            return open_port(host, 0)
        is_taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
        advice = "choose another --port, or leave it out" if is_taken else "choose another --host"
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise InputError(f"cannot listen on {host} port {wanted}: {reason}; {advice}") from error


def serve(app: ASGIApp, listener: socket.socket, *, should_stop: Callable[[], bool]) -> None:
    """Answer requests until `should_stop` says so; then those under way are finished.

    The server runs in a thread of its own, so that signals stay with the caller.

    Raises:
        OutputError: the server ended by itself.
    """
    import uvicorn

    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=SECONDS_TO_CLOSE,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=server.run, kwargs={"sockets": [listener]}, name="server", daemon=True
    )
    thread.start()
    while thread.is_alive() and not should_stop():
        thread.join(POLL_SECONDS)
    if not thread.is_alive():
        raise OutputError("the server ended by itself; start `ovsam demo` again")
    server.should_exit = True
    thread.join(SECONDS_TO_CLOSE + 1)
