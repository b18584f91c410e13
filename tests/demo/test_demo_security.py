"""Other pages, other hosts, wrong tokens, large and hostile uploads are refused."""

from __future__ import annotations

import asyncio
import struct
import zlib
from urllib.parse import unquote

import pytest
from conftest import HOST, TOKEN, png

from ovsam_cli.demo import security
from ovsam_cli.demo.security import list_hosts
from ovsam_cli.demo.uploads import MAX_UPLOAD_BYTES


@pytest.mark.parametrize(
    "host",
    ["evil.example:8765", "127.0.0.1", "127.0.0.1:80", "127.0.0.1.evil.example:8765", "", "[::1]"],
)
def test_foreign_host(client, host: str) -> None:
    """A name of another page that suddenly means this machine (DNS rebinding)."""
    answer = client.get("api/state", headers={"Host": host})
    assert answer.status_code == 421 and "colors" not in answer.text


@pytest.mark.parametrize("host", [HOST, "localhost:8765", "LOCALHOST:8765", "[::1]:8765"])
def test_own_hosts(client, host: str) -> None:
    assert client.get("api/state", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": f"http://{HOST}"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Origin": f"https://{HOST}"}, 403),
        ({"Origin": f"http://{HOST}.evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
    ],
)
def test_foreign_origin(client, headers: dict[str, str], status: int) -> None:
    assert client.get("api/state", headers=headers).status_code == status
    found = client.post("api/names", json={"bundled": "none"}, headers=headers).status_code
    assert found == (422 if status == 200 else 403)


def get_raw(app, path: str) -> tuple[int, str]:
    """Ask for a path that no client would send as it stands."""
    sent = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", HOST.encode())],
        "scheme": "http",
        "http_version": "1.1",
    }
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], b"".join(one.get("body", b"") for one in sent).decode()


@pytest.mark.parametrize(
    "path",
    ["/", "/api/state", "/wrong/api/state", f"/{TOKEN}", f"/{TOKEN}x/api/state", f"//{TOKEN}/",
     f"/{TOKEN[:-1]}/api/state", f"/x/../{TOKEN}/api/state"],
)  # fmt: skip
def test_wrong_token(app, path: str) -> None:
    status, text = get_raw(app, path)
    assert status == 404 and TOKEN not in text


@pytest.mark.parametrize(
    "path",
    ["static/../app.py", "static/%2e%2e/app.py", "static/..%2fapp.py", "static//etc/passwd",
     "examples/..%2f..%2fpyproject.toml", "examples/%2fetc%2fpasswd", "static/app.py",
     "api/images/..%2f..%2fx/picture", "docs", "openapi.json"],
)  # fmt: skip
def test_no_path_leads_to_a_file(app, path: str) -> None:
    status, text = get_raw(app, f"/{TOKEN}/{path}")
    assert status in (404, 410), text
    assert "import" not in text and "root:" not in text


def test_headers_of_every_answer(client) -> None:
    for answer in (client.get(""), client.get("api/state"), client.get("api/x"),
                   client.get("api/state", headers={"Host": "evil"})):  # fmt: skip
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy


def test_too_large_an_upload(client) -> None:
    assert client.post("api/images", content=bytes(MAX_UPLOAD_BYTES + 1)).status_code == 413


def test_a_body_that_hides_its_length_is_counted(client) -> None:
    def endless():
        for _ in range(40):
            yield bytes(1 << 20)

    answer = client.post("api/images", content=endless())
    assert answer.status_code == 413 and "32 MiB" in answer.text


def make_bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it has side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("data", "status", "message"),
    [
        (make_bomb(7000), 413, "7000 x 7000 pixels"),
        (make_bomb(60000), 413, "60000"),
        (b"", 415, "empty"),
        (b"GIF89a", 415, "bad.png"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not an image"),
        (png()[:200], 415, "bad.png"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_hostile_images(client, data: bytes, status: int, message: str) -> None:
    answer = client.post("api/images", content=data, headers={"X-File-Name": "bad.png"})
    assert answer.status_code == status, answer.text
    assert message in answer.json()["error"] and "/tmp" not in answer.json()["error"]


def test_uploads_leave_nothing_on_disk(client, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    client.post("api/images", content=png(), headers={"X-File-Name": "../../x.png"})
    client.post("api/images", content=b"nothing")
    assert [one.name for one in tmp_path.iterdir() if one.name != "cache"] == []


def test_tokens_are_long_and_new() -> None:
    tokens = {security.make_token() for _ in range(20)}
    assert len(tokens) == 20 and min(map(len, tokens)) >= 24


def test_hosts_of_other_addresses() -> None:
    assert "192.168.1.5:80" in list_hosts("192.168.1.5", 80)
    assert "[fe80::1]:80" in list_hosts("fe80::1", 80)
