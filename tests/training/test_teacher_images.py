"""Which images the teacher sees, and what is said of a wrong layout."""

from pathlib import Path

import pytest
from teacher_builders import write_images

from ovsam_cli.errors import InputError
from ovsam_cli.training.teacher_images import find_teacher_images


def test_a_folder_is_searched(tmp_path: Path) -> None:
    write_images(tmp_path, ["b.png", "more/ä %20.jpg"])
    images = find_teacher_images(tmp_path)
    assert [images[i].path for i in range(len(images))] == [
        tmp_path / "b.png",
        tmp_path / "more/ä %20.jpg",
    ]
    assert images[1].key == "more/%C3%A4 %2520.jpg"
    assert images[1].path.exists()


def test_sa1b_layout(tmp_path: Path) -> None:
    """Only listed folders, only sa_*.jpg, a folder listed twice counts once."""
    write_images(
        tmp_path,
        ["sa_000001/sa_10.jpg", "sa_000001/sa_9.jpg", "sa_000000/sa_1.jpg", "other/sa_3.jpg"],
    )
    write_images(tmp_path, ["sa_000000/preview.jpg"])
    (tmp_path / "train.txt").write_text("sa_000001/\n\nsa_000000\nsa_000001\n")
    images = find_teacher_images(tmp_path)
    keys = [images[i].key for i in range(len(images))]
    assert keys == ["sa_000001/sa_9.jpg", "sa_000001/sa_10.jpg", "sa_000000/sa_1.jpg"]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ("sa_7\n", r"train.txt:1: .*sa_7 is no folder; the SA-1B layout is a file train.txt"),
        ("\nempty\n", r"train.txt:2: no sa_\*.jpg in .*empty; the SA-1B layout"),
        ("\n", "names no folder"),
    ],
)
def test_wrong_sa1b_layout(tmp_path: Path, listed: str, message: str) -> None:
    write_images(tmp_path, ["empty/one.jpg"])
    (tmp_path / "train.txt").write_text(listed)
    with pytest.raises(InputError, match=message):
        find_teacher_images(tmp_path)


def test_no_folder_and_no_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; give a folder of images"):
        find_teacher_images(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, not a folder of images"):
        find_teacher_images(tmp_path / "file")
    (tmp_path / "bare").mkdir()
    with pytest.raises(InputError, match=r"no image found in .* there is no train.txt either"):
        find_teacher_images(tmp_path / "bare")
