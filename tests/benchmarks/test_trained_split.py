"""Which names of a vocabulary a model has seen, as a vocabulary."""

import json
import sys
from pathlib import Path

import pytest
import trained_split

from ovsam_cli.evaluation.splits import NameSplit


def test_seen_names_are_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`tiny` has seen 73 of COCO's names; what is printed can be given to --split."""
    monkeypatch.setattr(sys, "argv", ["trained_split.py", "tiny", "coco"])
    trained_split.main()
    path = tmp_path / "split.json"
    path.write_text(capsys.readouterr().out)
    assert sum(one["base"] for one in json.loads(path.read_text())) == 73
    split = NameSplit.find(str(path), {1: "cat", 2: "hair drier", 3: "nothing of it"})
    assert [split.kinds[number] for number in (1, 3)] == [1, 0]


def test_no_such_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["trained_split.py", "tiny", "none-such"])
    with pytest.raises(SystemExit, match="error: vocabulary 'none-such'"):
        trained_split.main()
