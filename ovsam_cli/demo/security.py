"""Who may talk to the demo: only a page that came from it, and only who knows its token.

Other pages in the same browser can send requests to this machine. They do not know the token,
which is part of every address; they cannot hide their `Origin`; and a name of theirs that suddenly
means this machine (DNS rebinding) stands in `Host`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ovsam_cli.errors import InputError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
TOKEN_BYTES = 18


class BodyTooLargeError(InputError):
    """More bytes came than a request may have."""


def make_token() -> str:
    """A new secret of an address."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def list_hosts(host: str, port: int) -> frozenset[str]:
    """What may stand in `Host`: this machine's own names for itself, and the address given.

    Args:
        host: that the server listens on.
        port: that it listens on.
    """
    names = {"127.0.0.1", "localhost", "[::1]", f"[{host}]" if ":" in host else host.lower()}
    return frozenset(f"{name}:{port}" for name in names)


class Guard:
    """ASGI middleware: refuses foreign hosts, foreign origins, wrong tokens and large bodies.

    Args:
        app: what is guarded; sees paths without the token.
        token: first part of every path.
        hosts: `name:port` that may stand in `Host`, and behind `http://` in `Origin`.
        max_body_bytes: of one request.
    """

    def __init__(
        self, app: ASGIApp, *, token: str, hosts: frozenset[str], max_body_bytes: int
    ) -> None:
        self._app = app
        self._token = token
        self._hosts = hosts
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it before the app sees it."""
        if scope["type"] != "http":  # the start and end of the app; the server has no web sockets
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        refusal = self._find_fault(headers, scope["path"])
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        path = scope["path"][len(self._token) + 1 :]
        inner = {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}
        await self._app(inner, self._counted(receive), send)

    def _find_fault(
        self, headers: Iterable[tuple[bytes, bytes]], path: str
    ) -> tuple[int, str] | None:
        """Status and reason of a refusal."""
        found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        if found.get("host", "").lower() not in self._hosts:
            return 421, "this address is not one of the demo; use the one it has printed"
        origin = urlsplit(found["origin"]) if "origin" in found else None
        if origin is not None and (origin.scheme != "http" or origin.netloc not in self._hosts):
            return 403, "requests of other pages are refused"
        if found.get("sec-fetch-site") in ("cross-site", "same-site") and (
            found.get("sec-fetch-mode") != "navigate"
        ):
            return 403, "requests of other pages are refused"
        given = path.split("/")[1].encode()
        if not secrets.compare_digest(given, self._token.encode()) or path.count("/") < 2:
            return 404, "not found; use the whole address that ovsam demo has printed"
        length = found.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_body_bytes:
            return 413, self._describe_limit()
        return None

    def _describe_limit(self) -> str:
        return f"the file is too large; at most {self._max_body_bytes >> 20} MiB"

    def _counted(self, receive: Receive) -> Receive:
        """Bodies without a length, or with a false one, are counted as they come."""
        num_bytes = 0

        async def receive_some() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_body_bytes:
                raise BodyTooLargeError(self._describe_limit())
            return message

        return receive_some


def _with_headers(send: Send) -> Send:
    own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]

    async def send_all(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *own]}
        await send(message)

    return send_all


async def _refuse(send: Send, status: int, text: str) -> None:
    body = text.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # what is left of a body is not read
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
