"""Rows 5 to 10 of the fault table; 1 is in test_kills, 2 in test_disk_full, 3 in test_corpus, 4 in
test_weights.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cases import BOUND_BY_PERMISSIONS, NUM_IMAGES, Case, count_rows, slowed, wait_for
from PIL import Image

# Memory for two images and not for the one that is 45 pixels high.
SHORT_OF_MEMORY = """
import torch
from ovsam_cli.model.ovsam import OVSAM
encode = OVSAM.encode_images
sizes = []
def encode_images(self, pixels, input_hw):
    sizes.append(len(pixels))
    if len(pixels) > 2 or (len(pixels) == 1 and {fails}):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
    return encode(self, pixels, input_hw)
OVSAM.encode_images = encode_images
"""


def test_memory_that_runs_out(case: Case, tmp_path: Path) -> None:
    """5: batches are halved until they fit, and nothing is lost."""
    ended = case.run(tmp_path, "--batch-size", "8", setup=SHORT_OF_MEMORY.format(fails="False"))
    assert ended.code == 0, ended.err
    assert "memory" in ended.err
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert len(content["images"]) == NUM_IMAGES


def test_images_that_no_memory_holds(case: Case, tmp_path: Path) -> None:
    """5: one that does not even fit alone is an error of its own, and the run goes on."""
    setup = SHORT_OF_MEMORY.format(fails="len(sizes) % 6 == 0")
    ended = case.run(tmp_path, setup=setup)
    assert ended.code == 3, ended.err
    rows = [json.loads(line) for line in (tmp_path / "errors.jsonl").read_text().splitlines()]
    assert {row["reason"] for row in rows} == {"out_of_memory"}
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert 0 < len(rows) == NUM_IMAGES - len(content["images"])
    ended = case.run(tmp_path, "--retry-failed")
    assert ended.code == 0, ended.err


def test_little_address_space(case: Case, tmp_path: Path) -> None:
    """5: an image too large for the memory that is left is an error, the others are labelled."""
    photos = tmp_path / "photos"
    shutil.copytree(case.photos, photos)
    Image.new("L", (13000, 13000)).save(photos / "large.png")
    setup = """
import resource
from ovsam_cli.labelling import local_engine
label_batches = local_engine.label_batches
def limited(*args, **kwargs):
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (600 << 20),) * 2)
    label_batches(*args, **kwargs)
local_engine.label_batches = limited
"""
    args = case.args(tmp_path / "out")
    args[1] = photos
    ended = case.starter.run(args, setup=setup)
    assert ended.code == 3, ended.err
    rows = [json.loads(line) for line in (tmp_path / "out/errors.jsonl").read_text().splitlines()]
    assert [(row["file_name"], row["reason"]) for row in rows] == [("large.png", "out_of_memory")]


def test_names_and_ids(case: Case, tmp_path: Path) -> None:
    """6: equal stems, equal last parts and odd names are kept apart and come back from JSON; an id
    that stands twice in the prompts is refused.
    """
    names = ["a.png", "a.jpg.png", "x/a.png", "y/a.png", "n" * 251 + ".png", "caf\udce9.png"]
    photos = tmp_path / "photos"
    for number, name in enumerate(names):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(case.photos / f"{number:03d}.png", photos / name)
    prompts = tmp_path / "prompts.json"
    entries = [{"file_name": name, "boxes": [[3, 3, 40, 30]] * 2} for name in names]
    prompts.write_text(json.dumps({"images": entries}))
    args = case.args(tmp_path / "out", "--previews", "all")
    args[1], args[3] = photos, prompts
    ended = case.starter.run(args)
    assert ended.code == 0, ended.err
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert sorted(image["file_name"] for image in content["images"]) == sorted(names)
    for rows in (content["images"], content["annotations"]):
        assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(content["annotations"]) == 2 * len(names)
    previews = tmp_path / "out" / "previews"
    assert len([path for path in previews.rglob("*") if path.is_file()]) == len(names)
    twice = {"file_name": "a.png", "prompts": [{"id": 1, "box": [1, 1, 9, 9]}] * 2}
    prompts.write_text(json.dumps({"images": [twice]}))
    ended = case.starter.run(args)
    assert (ended.code, "prompt id 1 stands twice" in ended.err) == (2, True)


def test_two_runs_on_one_folder(case: Case, whole: bytes, tmp_path: Path) -> None:
    """7: the second stops within a second of its start, naming the first; the first is unharmed;
    what a killed one leaves stands in nobody's way.
    """
    first = case.start(tmp_path, setup=slowed(0.2))
    wait_for((tmp_path / ".ovsam" / "part-00000.jsonl").exists)
    second = case.run(tmp_path, "--restart")
    assert second.code == 1
    assert f"(process {first.pid} on host {socket.gethostname()})" in second.err
    rows = count_rows(tmp_path)
    first.send(signal.SIGKILL)
    first.wait()
    owner = json.loads((tmp_path / ".ovsam" / "lock.json").read_text())
    assert owner["pid"] == first.pid  # nobody took it away
    assert count_rows(tmp_path) >= rows
    assert case.run(tmp_path).code == 0
    assert (tmp_path / "annotations.json").read_bytes() == whole


def test_clocks_zones_and_times_of_files(case: Case, whole: bytes, tmp_path: Path) -> None:
    """8: neither a clock that jumps, nor the time zone, nor the locale, nor the times of the files
    matter to what is done, to its bytes, or to the estimate of the time left.
    """
    jumping = """
import random, time
time.time = lambda: random.choice([0.0, 1e9, 4e9])
"""
    env = {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "LANG": "C", "PYTHONIOENCODING": "ascii"}
    process = case.starter.start(case.args(tmp_path / "out"), setup=jumping + slowed(0.1), env=env)
    wait_for(lambda: count_rows(tmp_path / "out") >= 5)
    process.send(signal.SIGINT)
    assert process.wait().code == 130
    for path in case.photos.iterdir():
        os.utime(path, (0, 0))
    for path in (tmp_path / "out").rglob("*"):
        os.utime(path, (-1, -1))
    ended = case.starter.run(
        case.args(tmp_path / "out"), setup=jumping, env=env | {"TZ": "Asia/Kathmandu"}
    )
    assert ended.code == 0, ended.err
    assert int(ended.err.partition(" images labelled")[0].rpartition("\n")[2]) < NUM_IMAGES - 4
    assert "-" not in ended.err.partition(" s left")[0]
    assert (tmp_path / "out" / "annotations.json").read_bytes() == whole


def test_an_output_that_cannot_be_written(case: Case, tmp_path: Path) -> None:
    """9: found before weights are loaded."""
    (tmp_path / "out").mkdir(mode=0o555)
    args = case.args(tmp_path / "out")
    args[args.index("--model") + 1] = case.folder / "prompts.json"  # no weights at all
    ended = case.starter.run(args, setup=BOUND_BY_PERMISSIONS)
    assert ended.code == 2
    assert "out: cannot be written: Permission denied; choose another --out" in ended.err


def test_an_image_that_may_not_be_read(case: Case, tmp_path: Path) -> None:
    """9: it is a row in errors.jsonl; with its permissions mended, --retry-failed takes it."""
    photos = tmp_path / "photos"
    shutil.copytree(case.photos, photos)
    (photos / "003.png").chmod(0)
    args = case.args(tmp_path / "out")
    args[1] = photos
    ended = case.starter.run(args, setup=BOUND_BY_PERMISSIONS)
    assert ended.code == 3, ended.err
    (row,) = map(json.loads, (tmp_path / "out" / "errors.jsonl").read_text().splitlines())
    assert (row["file_name"], row["reason"]) == ("003.png", "permission")
    (photos / "003.png").chmod(0o644)
    ended = case.starter.run([*args, "--retry-failed"], setup=BOUND_BY_PERMISSIONS)
    assert (ended.code, "1 images labelled" in ended.err) == (0, True)


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_cache_that_cannot_be_written(
    case: Case, whole: bytes, tmp_path: Path, mode: int
) -> None:
    """9: it is read where it can be, and done without where not."""
    cache = tmp_path / "cache"
    assert case.starter.run(case.args(tmp_path / "a"), env={"OVSAM_CACHE": str(cache)}).code == 0
    before = sorted(cache.rglob("*"))
    assert before
    for path in [cache, *(path for path in before if path.is_dir())]:
        path.chmod(mode)
    ended = case.starter.run(
        case.args(tmp_path / "b"), setup=BOUND_BY_PERMISSIONS, env={"OVSAM_CACHE": str(cache)}
    )
    for path in [cache, *(path for path in before if path.is_dir())]:
        path.chmod(0o755)
    assert ended.code == 0, ended.err
    assert sorted(cache.rglob("*")) == before
    assert (tmp_path / "b" / "annotations.json").read_bytes() == whole


@pytest.mark.parametrize("is_told", [True, False])
def test_no_network(case: Case, tmp_path: Path, is_told: bool) -> None:
    """10: what is on this machine needs no network call; what is not ends in exit code 4 within
    10 s, with the command that fetches it.
    """
    cut = """
import socket
def refuse(*args, **kwargs):
    raise socket.gaierror(-3, "Temporary failure in name resolution")
socket.getaddrinfo = refuse
socket.socket.connect = refuse
"""
    env = {"HF_HOME": str(tmp_path / "hf"), "OVSAM_CACHE": str(tmp_path / "cache")}
    if is_told:
        cut = "from huggingface_hub import constants; constants.HF_HUB_OFFLINE = True\n" + cut
    args = case.args(tmp_path / "out", "--vocab", "cat, dog")
    assert case.starter.run(args, setup=cut, env=env).code == 0
    args[args.index("--model") + 1] = "rn50x16"
    args[args.index("--out") + 1] = tmp_path / "other"
    ended = case.starter.run(args, setup=cut, env=env)
    assert ended.code == 4, ended.err
    assert ended.seconds < 10
    assert "hf download HarborYuan/ovsam_models " in ended.err and "--revision" in ended.err
    assert not list(tmp_path.rglob("*.incomplete"))


class _BreakingHub(BaseHTTPRequestHandler):
    """Names a file of a million bytes and sends a thousand of them."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()
        self.wfile.write(b"x" * 1000)

    def _answer(self) -> None:
        self.send_response(200)
        for name, value in (("ETag", '"' + 64 * "a" + '"'), ("X-Repo-Commit", 40 * "c")):
            self.send_header(name, value)
        self.send_header("Content-Length", "1000000")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_a_download_that_breaks_off(case: Case, tmp_path: Path) -> None:
    """10: exit code 4 with one line, no half file used or left."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _BreakingHub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        setup = f"""
from huggingface_hub import constants, file_download
constants.ENDPOINT, constants.HUGGINGFACE_CO_URL_TEMPLATE = {url!r}, {template!r}
constants.HF_HUB_CACHE = {str(tmp_path / "hub")!r}
file_download.time.sleep = lambda seconds: None  # between its own attempts
"""
        env = {"OVSAM_CACHE": str(tmp_path / "cache")}
        ended = case.starter.run(["models", "download", "rn50x16"], setup=setup, env=env)
        server.shutdown()
    assert ended.code == 4, ended.err
    assert "Traceback" not in ended.err
    (line,) = (line for line in ended.err.splitlines() if "not on this machine" in line)
    assert "peer closed connection" in line and "hf download HarborYuan/ovsam_models" in line
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > 500
    ]
