"""`ovsam export FORMAT`: every format from a COCO file and a run, summary lines, refusals."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from export_builders import CATEGORIES, write_images

from ovsam_cli.cli.export import export_app
from ovsam_cli.outputs.coco import CocoOptions, CocoWriter

FILES = ("coco-results", "lvis")
FOLDERS = (
    *("yolo-seg", "yolo-box", "voc", "labelme", "x-anylabeling", "label-studio", "cvat"),
    *("hf-imagefolder", "webdataset"),
)


@pytest.fixture
def dataset(tmp_path):
    """A COCO file beside its images."""
    folder = tmp_path / "photos"
    results = write_images(folder)
    with CocoWriter(folder / "d.json", categories=CATEGORIES, options=CocoOptions()) as coco:
        for result in results:
            coco.write(result)
    return folder / "d.json"


def test_all_formats_are_tested():
    names = {command.name for command in export_app.registered_commands}
    assert {*FILES, *FOLDERS} <= names


@pytest.mark.parametrize("name", [*FILES, *FOLDERS])
def test_format(name, dataset, tmp_path, ovsam):
    out = tmp_path / ("out.json" if name in FILES else "out")
    result = ovsam("export", name, dataset, "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(out) and out.exists()
    assert "7 objects in 4 images; " in result.stderr
    again = ovsam("export", name, dataset, "--out", out)
    assert again.exit_code == 2 and "--overwrite" in again.stderr
    assert ovsam("export", name, dataset, "--out", out, "--overwrite", "-q").stderr == ""


def test_losses_stand_in_the_summary(dataset, tmp_path, ovsam):
    result = ovsam("export", "yolo-seg", dataset, "--out", tmp_path / "out")
    assert result.stderr.splitlines()[-1] == (
        "7 objects in 4 images; not in the export: 7 object(s)' attributes, 7 score(s), "
        "1 hole(s) that polygons cannot express"
    )
    result = ovsam("export", "labelme", dataset, "--out", tmp_path / "l")
    told = "7 objects in 4 images; not in the export: 7 object(s)' attributes"
    assert result.stderr.splitlines()[-1] == told
    content = json.loads(dataset.read_text())
    for entry in content["annotations"]:
        del entry["attributes"]
    dataset.write_text(json.dumps(content))
    result = ovsam("export", "labelme", dataset, "--out", tmp_path / "m")
    assert result.stderr.splitlines()[-1] == "7 objects in 4 images; nothing lost"


def test_nothing_to_export_is_code_5(dataset, tmp_path, ovsam):
    empty = dataset.with_name("e.json")
    with CocoWriter(empty, categories=CATEGORIES, options=CocoOptions()):
        pass
    assert ovsam("export", "yolo-box", empty, "--out", tmp_path / "out").exit_code == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "--out", "o"], "missing"),
        (["photos/a.png", "--out", "o"], "a.png: is no COCO data set|a.png: is not JSON"),
        (["photos/d.json", "--out", "photos"], "photos: is there already and is no export"),
        (["photos/d.json", "--out", "o", "--image-root", "no"], "no/a.png: no such image"),
        (["photos/d.json", "--out", "o", "--val", "1"], "--val"),
        (["photos/d.json", "--out", "o", "--images", "move"], "--images"),
        (["photos/d.json", "photos/d.json", "--out", "o"], "d.json"),
    ],
)
def test_mistakes_are_one_line(arguments, message, dataset, tmp_path, ovsam, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = ovsam("export", "yolo-seg", *arguments)
    assert result.exit_code == 2
    assert re.search(message, result.output) and "Traceback" not in result.output
    assert not Path("o").exists() and not Path(".o.tmp").exists()


def test_exports_run_without_torch(dataset, tmp_path):
    """Where torch cannot even be imported."""
    out = str(tmp_path / "o")
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom ovsam_cli.__main__ import main\n"
        f"sys.argv = ['ovsam', 'export', 'cvat', {str(dataset)!r}, '--out', {out!r}]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "o" / "annotations.xml").exists()


def test_coco_from_coco(dataset, tmp_path, ovsam):
    """Polygons to run lengths and back; objects that are passed over are told."""
    polygons = tmp_path / "p.json"
    done = ovsam("export", "coco", dataset, "--out", polygons, "--masks", "polygon")
    assert done.exit_code == 0 and "lost the holes of 1 masks" in done.stderr
    done = ovsam("export", "coco", polygons, "--out", tmp_path / "r.json")
    assert done.exit_code == 0, done.output
    rows = json.loads((tmp_path / "r.json").read_text())["annotations"]
    assert [row["segmentation"]["size"] for row in rows] == [[48, 64]] * 7
    data = json.loads(dataset.read_text())
    data["annotations"][0]["iscrowd"] = 1
    dataset.write_text(json.dumps(data))
    done = ovsam("export", "coco", dataset, "--out", tmp_path / "c.json")
    assert "left out: 1 crowd region(s)" in done.stderr
