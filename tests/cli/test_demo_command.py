"""`ovsam demo`: mistakes are one line; it serves until it is told to stop."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest
from typer.testing import Result

from ovsam_cli.cli import demo as command
from ovsam_cli.errors import InputError


def test_without_its_extra(ovsam: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    result = ovsam("demo")
    assert result.exit_code == 2
    assert "pip install 'ovsam-cli[demo]'" in result.stderr and "Traceback" not in result.stderr


def test_a_port_that_is_taken(ovsam: Callable[..., Result]) -> None:
    pytest.importorskip("fastapi")
    with socket.create_server(("127.0.0.1", 0)) as other:
        result = ovsam("demo", "--port", str(other.getsockname()[1]))
    assert result.exit_code == 2 and "choose another --port" in result.stderr


def test_default_port_gives_way() -> None:
    pytest.importorskip("uvicorn")
    from ovsam_cli.demo import server

    with (
        server.open_port("127.0.0.1", None) as first,
        server.open_port("127.0.0.1", None) as second,
    ):
        assert first.getsockname()[1] != second.getsockname()[1]
    with pytest.raises(InputError, match="choose another --host"):
        server.open_port("203.0.113.1", 0)


def test_serves_until_told_to_stop() -> None:
    """A browser asks it in tests/demo/test_demo_browser.py; no test here may open a connection."""
    pytest.importorskip("uvicorn")
    from ovsam_cli.demo import server

    async def app(scope, receive, send) -> None:
        raise AssertionError("nobody asks")

    polls = iter([False, False, True])
    with server.open_port("127.0.0.1", 0) as listener:
        server.serve(app, listener, should_stop=lambda: next(polls))
    assert not any(thread.name == "server" for thread in threading.enumerate())
