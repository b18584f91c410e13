"""A person with mouse and keyboard: the page in a real browser, on a real photo, with `tiny`."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pycocotools.coco import COCO

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: make test-demo does it"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WAIT = 60_000  # milliseconds
COFFEE_WH, CUP_BOX = (600, 400), (172, 17, 406, 312)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The program as a user starts it, ended by Ctrl-C."""
    cache = tmp_path_factory.mktemp("cache")
    started = subprocess.Popen(
        [sys.executable, "-m", "ovsam_cli", "demo", "--port", "0", "--model", "tiny", "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OVSAM_CACHE": str(cache)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert started.stdout is not None
    line = started.stdout.readline().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{24}/", line), started.communicate()
    yield line
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=30)
    assert started.returncode == 0, errors
    assert "Traceback" not in errors


@pytest.fixture
def page(address: str) -> Iterator[object]:
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        faults: list[str] = []

        def note(text: str) -> None:  # what the server refuses is logged by the browser
            if not text.startswith("Failed to load resource"):
                faults.append(text)

        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: line.type == "error" and note(line.text))
        page.on(
            "request", lambda one: one.url.startswith((address, "blob:")) or faults.append(one.url)
        )
        page.goto(address)
        page.wait_for_selector("body[data-ready]", timeout=WAIT)
        yield page
        browser.close()
    assert faults == []


def open_coffee(page) -> None:
    page.click('#examples button[title="coffee.jpg"]')
    page.wait_for_selector("#canvas:not([hidden])", timeout=WAIT)
    wait(page)


def wait(page) -> None:
    page.wait_for_selector("#busy[hidden]", state="attached", timeout=WAIT)


def place(page, x: float, y: float) -> tuple[float, float]:
    frame = page.locator("#canvas").bounding_box()
    width, height = COFFEE_WH
    return frame["x"] + x / width * frame["width"], frame["y"] + y / height * frame["height"]


def drag(page, box) -> None:
    page.mouse.move(*place(page, *box[:2]))
    page.mouse.down()
    page.mouse.move(*place(page, *box[2:]), steps=4)
    page.mouse.up()
    page.wait_for_selector("#keep:not([disabled])", timeout=WAIT)
    wait(page)


def read_pixel(page, x: float, y: float) -> list[int]:
    width, height = COFFEE_WH
    return page.locator("#canvas").evaluate(
        "(canvas, [x, y]) => [...canvas.getContext('2d')"
        ".getImageData(canvas.width * x, canvas.height * y, 1, 1).data]",
        [x / width, y / height],
    )


def test_box_points_names_undo_and_download(page) -> None:
    open_coffee(page)
    inside, outside = (290, 60), (30, 380)
    before = [read_pixel(page, *at) for at in (inside, outside)]
    drag(page, CUP_BOX)
    assert read_pixel(page, *inside) != before[0]  # the mask is drawn
    assert read_pixel(page, *outside) == before[1]
    best = page.locator("#best button")
    assert best.count() == 5
    first = best.nth(0).locator("span").nth(1).text_content()
    assert first in page.text_content("#status")

    page.mouse.click(*place(page, 60, 60), button="right")
    page.wait_for_selector("#keep:not([disabled])", timeout=WAIT)
    page.keyboard.press("2")
    second = best.nth(1).locator("span").nth(1).text_content()
    assert best.nth(1).get_attribute("aria-pressed") == "true"
    page.keyboard.press("Enter")
    assert page.locator("#kept li").count() == 1
    page.keyboard.press("Control+z")
    assert page.locator("#kept li").count() == 0
    page.keyboard.press("Control+Shift+z")
    assert page.locator("#kept .name").text_content() == second

    with page.expect_download() as saved:
        page.click("#download")
    path = Path(saved.value.path())
    content = json.loads(path.read_text())
    assert [one["file_name"] for one in content["images"]] == ["coffee.jpg"]
    coco = COCO(str(path))
    (found,) = coco.loadAnns(coco.getAnnIds())
    assert coco.loadCats(found["category_id"])[0]["name"] == second
    assert coco.annToMask(found).shape == COFFEE_WH[::-1]
    assert coco.annToMask(found).sum() == found["area"] > 10_000
    prompt = found["attributes"]["prompt"]
    assert prompt["labels"] == [0] and prompt["box"] == pytest.approx(CUP_BOX, abs=2)


def test_own_names_are_used_at_once(page) -> None:
    open_coffee(page)
    drag(page, CUP_BOX)
    page.select_option("#vocabulary", "own")
    page.fill("#own-names", "cup, dog\nrocket")
    page.click("#use-names")
    page.wait_for_selector("#names-first:has-text('3 names')", timeout=WAIT)
    page.wait_for_selector("#best button:nth-child(3):last-child", timeout=WAIT)
    names = page.locator("#best button span:nth-of-type(2)").all_inner_texts()
    assert sorted(names) == ["cup", "dog", "rocket"]
    page.fill("#own-names", "  ")
    page.click("#use-names")
    assert "no name" in page.locator("#names-error").text_content(timeout=WAIT)


def test_keyboard_alone(page) -> None:
    open_coffee(page)
    page.focus("#canvas")
    for key in ["d", "ArrowLeft"] + ["ArrowLeft"] * 9 + ["ArrowUp"] * 12 + ["Space"]:
        page.keyboard.press(key)
    for key in ["ArrowRight"] * 18 + ["ArrowDown"] * 22 + ["Space"]:
        page.keyboard.press(key)
    page.wait_for_selector("#keep:not([disabled])", timeout=WAIT)
    page.keyboard.press("Enter")
    assert page.locator("#kept li").count() == 1
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()


def test_uploads_and_their_faults(page, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    page.set_input_files("#file", bad)
    page.wait_for_selector("#status.bad", timeout=WAIT)
    assert "bad.png: not an image" in page.text_content("#status")
    page.set_input_files("#file", Path(__file__).parents[2] / "examples" / "cat.jpg")
    page.wait_for_selector("#canvas:not([hidden])", timeout=WAIT)
    assert page.text_content("#status").startswith("cat.jpg, 451 ")


@pytest.mark.parametrize("width", [360, 390, 768])
def test_nothing_sticks_out_at_phone_width(page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    open_coffee(page)
    drag(page, CUP_BOX)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
