"""Images, prompts, names and results behind URLs: a store in memory, S3 and web servers on this
machine that behave, and one that does not."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from typer.testing import Result

from ovsam_cli import remote
from ovsam_cli.errors import ImageError, InputError
from ovsam_cli.image_paths import find_images
from ovsam_cli.images import read_image
from ovsam_cli.labelling.options import parse_output
from ovsam_cli.remote import is_url, parse_location, read_url
from ovsam_cli.vocabulary import read_vocabulary

Ovsam = Callable[..., Result]
Serve = Callable[..., str]
PROMPTS = {"images": [{"file_name": "a.jpg", "boxes": [[5, 5, 40, 50]]}]}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of this machine may be reached; nothing else."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX or address[0] == "127.0.0.1":
            return connect(self, address)
        raise OSError(f"tests have no network; tried {address!r}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def memory(photos: Path) -> Iterator[str]:
    """`photos` in a store in memory, by its URL."""
    store = fsspec.filesystem("memory")
    for path in sorted(photos.rglob("*")):
        if path.is_file():
            store.pipe_file(f"/run/photos/{path.relative_to(photos)}", path.read_bytes())
    store.pipe_file("/run/photos/.hidden/c.jpg", b"")
    store.pipe_file("/run/photos/notes.txt", b"")
    store.pipe_file("/run/prompts.json", json.dumps(PROMPTS).encode())
    store.pipe_file("/run/names.txt", b"cat\ndog, hound\n")
    yield "memory://run"
    store.rm("/", recursive=True)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """The address of an S3 server on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=silent, stderr=silent) as server:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.fixture
def s3(s3_server: str, photos: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`photos` in a bucket, by their URL."""
    settings = {"ENDPOINT_URL": s3_server, "ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}
    for name, value in {**settings, "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    store = fsspec.filesystem("s3", skip_instance_cache=True)
    if not store.exists("bucket"):
        store.mkdir("bucket")
    for path in sorted(photos.rglob("*")):
        if path.is_file():
            store.put_file(str(path), f"bucket/photos/{path.relative_to(photos)}")
    store.pipe_file("bucket/photos-of-others/c.jpg", b"")
    return "s3://bucket/photos"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(b"...", b"...")` gives a URL whose first answer is the first, and so on."""
    servers = []

    def start(*answers: bytes, path: str = "a.jpg") -> str:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)
        threading.Thread(target=_answer, args=(server, answers), daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/{path}"

    yield start
    for server in servers:
        server.close()


def _answer(server: socket.socket, answers: tuple[bytes, ...]) -> None:
    """The last answer is given for ever."""
    number = 0
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.recv(65536)
            connection.sendall(answers[min(number, len(answers) - 1)])
        number += 1


def _respond(body: bytes, *, status: str = "200 OK", sent: int | None = None) -> bytes:
    """A whole answer, or one of which only `sent` bytes of the body come."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body[:sent]


# --- locations


def test_paths_and_urls() -> None:
    assert is_url("s3://a/b") and is_url("hf://datasets/x") and not is_url("C:/x.jpg")
    assert not is_url("x/y.jpg") and not is_url("@list.txt")
    assert parse_location("file:///a%20b/c.jpg") == Path("/a b/c.jpg")
    assert parse_location("a//b") == Path("a/b") and parse_location("s3://a//b") == "s3://a//b"


def test_where_a_run_works_and_what_it_sends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVSAM_CACHE", str(tmp_path))
    assert parse_output("out", None) == (Path("out"), None)
    folder, url = parse_output("s3://bucket/out", None)
    assert folder.parent == tmp_path / "runs" and url == "s3://bucket/out"
    assert parse_output("s3://bucket/out", tmp_path) == (tmp_path, "s3://bucket/out")
    with pytest.raises(InputError, match="only for an --out that is a URL, not 'out'"):
        parse_output("out", tmp_path)


def test_missing_packages_and_protocols_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="Protocol not known: nosuch"):
        read_url("nosuch://a/b.jpg")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(InputError, match=r"pip install 'ovsam-cli\[remote\]'"):
        find_images(["s3://bucket/photos"])


# --- finding


def test_a_store_is_listed_like_a_folder(memory: str, photos: Path) -> None:
    local = find_images([str(photos)])
    found = find_images([f"{memory}/photos/"])
    assert [(r.file_name, r.image_id) for r in found] == [(r.file_name, r.image_id) for r in local]
    assert found[1].path == "memory:///run/photos/more/b.png"
    assert [r.file_name for r in find_images([f"{memory}/*/*.jpg"])] == ["photos/a.jpg"]
    assert [r.file_name for r in find_images([f"{memory}/photos/more/b.png"])] == ["b.png"]
    with pytest.raises(InputError, match=r"run/nothing: no such object, nothing below it"):
        find_images([f"{memory}/nothing"])


def test_lists_may_hold_urls_and_be_one(memory: str, photos: Path, tmp_path: Path) -> None:
    """Nothing of a list of URLs is looked for: what is missing is found out when it is read."""
    listed = tmp_path / "list.txt"
    listed.write_text("http://one.test/x/1.jpg?key=secret\nhttps://two.test/2.jpg\n")
    records = find_images([f"@{listed}"])
    assert [record.file_name for record in records] == [
        "http/one.test/x/1.jpg",
        "https/two.test/2.jpg",
    ]
    assert records[0].path == "http://one.test/x/1.jpg?key=secret"
    fsspec.filesystem("memory").pipe_file("/run/list.txt", b"photos/a.jpg\nphotos/gone.jpg\n")
    assert [r.file_name for r in find_images([f"@{memory}/list.txt"])] == ["a.jpg", "gone.jpg"]
    both = find_images([str(photos), f"{memory}/photos"])
    assert len(both) == 4 and len({record.file_name for record in both}) == 4


def test_names_and_prompts(memory: str) -> None:
    assert read_vocabulary(f"{memory}/names.txt").names == ("cat", "dog")
    from ovsam_cli.prompts import read_prompts

    assert read_prompts(f"{memory}/prompts.json").num_prompts == 1
    with pytest.raises(InputError, match=r"memory://run/none.json: cannot read the prompts"):
        read_prompts(f"{memory}/none.json")


# --- reading


def test_a_download_that_breaks_off_is_begun_again(serve: Serve, photos: Path) -> None:
    """The second answer is whole; of the first, of which half came, nothing is used."""
    content = (photos / "a.jpg").read_bytes()
    half = _respond(content, sent=len(content) // 2)
    busy = _respond(b"", status="503 Service Unavailable")
    assert read_url(serve(half, busy, _respond(content))) == content


def test_half_an_image_is_never_taken(serve: Serve, photos: Path) -> None:
    content = (photos / "a.jpg").read_bytes()
    url = serve(_respond(content, sent=len(content) - 1))
    with pytest.raises(ImageError, match="after 4 attempts") as caught:
        read_image(f"{url}?signature=secret")
    assert caught.value.reason == "unreachable" and "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "reason"), [("404 Not Found", "not_found"), ("403 Forbidden", "permission")]
)
def test_final_answers_are_not_asked_for_again(serve: Serve, status: str, reason: str) -> None:
    url = serve(_respond(b"", status=status), _respond(b"never asked"))
    with pytest.raises(ImageError) as caught:
        read_image(url)
    assert caught.value.reason == reason


def test_nobody_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ImageError) as caught:
        read_image(f"http://127.0.0.1:{port}/a.jpg")
    assert caught.value.reason == "unreachable"


# --- runs


@pytest.fixture
def label(ovsam: Ovsam, checkpoint: Path) -> Ovsam:
    def run(images: str | Path, out: str | Path, *more: str | Path) -> Result:
        return ovsam(
            *("label", images, "--vocab", "cat, dog, hound", "--grid", "2", "--min-stability", "0"),
            *("--model", checkpoint, "--devices", "cpu", "--out", out, *more),
        )

    return run


def test_a_run_in_memory(label: Ovsam, memory: str, photos: Path, tmp_path: Path) -> None:
    """Images, prompts and results behind URLs: the bytes of the local run."""
    prompts = ("--prompts", f"{memory}/prompts.json")
    assert label(photos, tmp_path / "out", *prompts).exit_code == 0
    result = label(f"{memory}/photos", f"{memory}/out", *prompts, "--previews", "1")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == f"{memory}/out/annotations.json"
    store = fsspec.filesystem("memory")
    assert (
        store.cat("/run/out/annotations.json")
        == (tmp_path / "out" / "annotations.json").read_bytes()
    )
    state = ("description.json", "images.jsonl", "manifest.json", "part-00000.jsonl")
    assert sorted(store.find("/run/out")) == [
        f"/run/out/{name}"
        for name in (
            *(f"_state/{name}" for name in state),
            *("annotations.json", "errors.jsonl", "previews/a.jpg.jpg", "report.html"),
            "run.json",
        )
    ]
    store.pipe_file("/run/out/annotations.json", b"changed by others")
    store.rm_file("/run/out/run.json")
    assert label(f"{memory}/photos", f"{memory}/out", *prompts, "--previews", "1").exit_code == 2
    again = label(f"{memory}/photos", f"{memory}/out", *prompts, "--overwrite")
    assert again.exit_code == 0 and "run.json" in str(store.find("/run/out"))


def test_shards_behind_a_url_are_joined(
    ovsam: Ovsam, label: Ovsam, memory: str, photos: Path, tmp_path: Path
) -> None:
    """By what they sent alone: the file of the undivided run, and Parquet of the same."""
    assert label(photos, tmp_path / "out").exit_code == 0
    whole = (tmp_path / "out" / "annotations.json").read_bytes()
    for shard in ("0/2", "1/2"):
        state = ("--state", tmp_path / shard[0])
        assert label(photos, f"{memory}/shards", "--shard", shard, *state).exit_code in (0, 5)
        shutil.rmtree(tmp_path / shard[0])
        joined = tmp_path / f"joined-{shard[0]}.json"
        result = ovsam("export", "coco", f"{memory}/shards", "--out", joined)
    assert result.exit_code == 0, result.output
    assert joined.read_bytes() == whole
    assert not (tmp_path / "joined-0.json").exists()  # half of the shards were missing then
    parts = tmp_path / "parts"
    assert ovsam("export", "parquet", f"{memory}/shards", "--out", parts).exit_code == 0
    assert ovsam("export", "coco", parts, "--out", tmp_path / "again.json").exit_code == 0
    assert (tmp_path / "again.json").read_bytes() == whole


def test_rows_of_a_run_that_was_begun_anew_are_sent_no_more(
    ovsam: Ovsam, label: Ovsam, memory: str, photos: Path, tmp_path: Path
) -> None:
    state = ("--state", tmp_path / "state")
    assert label(photos, f"{memory}/out", *state).exit_code == 0
    fsspec.filesystem("memory").pipe_file("/run/out/_state/part-00007.jsonl", b"{}\n")
    assert label(photos, f"{memory}/out", *state, "--restart").exit_code == 0
    names = fsspec.filesystem("memory").find("/run/out/_state")
    assert [name for name in names if "part-" in name] == ["/run/out/_state/part-00000.jsonl"]
    assert ovsam("export", "coco", f"{memory}/out", "--out", tmp_path / "x.json").exit_code == 0


def test_a_run_on_s3(label: Ovsam, s3: str, photos: Path, tmp_path: Path) -> None:
    """A whole run against a real server: list, read, write; one object goes missing meanwhile."""
    assert label(photos, tmp_path / "out").exit_code == 0
    wanted = (tmp_path / "out" / "annotations.json").read_bytes()
    result = label(s3, "s3://bucket/out", "--state", tmp_path / "state")
    assert result.exit_code == 0, result.output
    store = fsspec.filesystem("s3", skip_instance_cache=True)
    assert store.cat("bucket/out/annotations.json") == wanted
    assert json.loads(store.cat("bucket/out/run.json"))["images"]["total"] == 2
    # The same command, also from elsewhere with the same --state, finds it all done.
    modified = store.info("bucket/out/run.json")["LastModified"]
    assert label(s3, "s3://bucket/out", "--state", tmp_path / "state").exit_code == 0
    assert (
        fsspec.filesystem("s3", skip_instance_cache=True).info("bucket/out/run.json")[
            "LastModified"
        ]
        == modified
    )
    listed = tmp_path / "list.txt"
    listed.write_text(f"{s3}/a.jpg\n{s3}/gone.jpg\n")
    result = label(f"@{listed}", tmp_path / "partly")
    assert result.exit_code == 3, result.output
    (row,) = map(json.loads, (tmp_path / "partly" / "errors.jsonl").read_text().splitlines())
    assert (row["file_name"], row["reason"]) == ("gone.jpg", "not_found")


def test_unwritable_targets_are_found_before_the_weights(
    label: Ovsam, s3: str, photos: Path, tmp_path: Path
) -> None:
    result = label(
        photos, "s3://no-such-bucket/out", "--model", tmp_path, "--state", tmp_path / "s"
    )
    assert result.exit_code in (1, 2), result.output
    assert "s3://no-such-bucket/out" in result.stderr
    result = label(photos, s3, "--state", tmp_path / "s")
    assert result.exit_code == 2
    assert "is not empty and holds no run of ovsam (found 'a.jpg')" in result.stderr
