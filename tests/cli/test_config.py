"""Options from a file, from the environment and from the command line; the later wins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Ovsam = Callable[..., Result]


@pytest.fixture
def write_config(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "ovsam.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def plan(ovsam: Ovsam, photos: Path, tmp_path: Path) -> Ovsam:
    """`ovsam label --dry-run`, which says in words how many points and names there are."""

    def run(*more: str | Path) -> Result:
        return ovsam("label", photos, "--out", tmp_path / "out", "--dry-run", *more)

    return run


Write = Callable[[str], Path]
FILE = '[label]\nvocab = "cat, dog"\nmodel = "tiny"\ngrid = 4\n[train.sam2clip]\nepochs = 2\n'


def test_a_file_gives_required_options_too(plan: Ovsam, write_config: Write) -> None:
    done = plan("--config", write_config(FILE))
    assert done.exit_code == 0, done.output
    assert "a grid of 4 x 4 points" in done.stdout and "model tiny" in done.stdout


def test_the_environment_wins_over_the_file_and_flags_over_both(
    plan: Ovsam, write_config: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVSAM_CONFIG", str(write_config(FILE)))
    monkeypatch.setenv("OVSAM_LABEL_GRID", "5")
    assert "a grid of 5 x 5 points" in plan().stdout
    assert "a grid of 6 x 6 points" in plan("--grid", "6").stdout
    monkeypatch.setenv("OVSAM_LABEL_GRID", "")  # empty is as if it were not there
    assert "a grid of 4 x 4 points" in plan().stdout


def test_the_run_record_says_what_was_set_by_whom(
    ovsam: Ovsam,
    checkpoint: Path,
    photos: Path,
    tmp_path: Path,
    write_config: Write,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write_config('[label]\nvocab = "cat, dog"\ngrid = 2\nreport = false\npreviews = 1\n')
    monkeypatch.setenv("OVSAM_LABEL_STRICT", "true")
    out = tmp_path / "out"
    done = ovsam("label", photos, "--config", path, "--model", checkpoint, "--out", out)
    assert done.exit_code in (0, 5), done.output
    command = json.loads((out / "run.json").read_text())["command"]
    assert command["config"] == str(path)
    assert command["set_by"] == {
        "images": "flag",
        "vocab": "config",
        "out": "flag",
        "grid": "config",
        "model": "flag",
        "previews": "config",
        "report": "config",
        "strict": "environment",
    }
    options = command["options"]
    assert options["images"] == [str(photos)] and options["grid"] == 2
    assert (options["report"], options["strict"], options["top-k"]) == (False, True, 5)
    assert not (out / "report.html").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[label]\ngird = 4", "[label]: 'gird' is no option; did you mean 'grid'?"),
        ("[label]\nbatch_size = 4", "'batch_size' is no option; did you mean 'batch-size'?"),
        ("[label]\nqqqq = 4", "'qqqq' is no option; there are address, base-names"),
        ("[lable]\ngrid = 4", "'lable' is no command; did you mean 'label'?"),
        ("grid = 4", "options stand in the table of their command: [label]"),
        ("label = 4", "'label' must be a table, [label]"),
        ("[label]\ngrid = 'many'", "'--grid' (from ovsam.toml): 'many' is not a whole number."),
        ("[label]\ngrid = 2.5", "'2.5' is not a whole number."),
        ("[label]\ngrid = 257", "'257' is not in the range 1..256."),
        ("[label]\ngrid = true", "[label] grid: True is neither text nor a number"),
        ("[label]\nvocab = ['a', 'b']", "vocab: ['a', 'b'] is neither text nor a number"),
        ("[label]\nstrict = 'yes'", "[label] strict: 'yes' is neither true nor false"),
        ("[label]\ndtype = 'int8'", "'int8' is not one of 'auto', 'float32', 'bfloat16'."),
        ("[label", "--config ovsam.toml: is no TOML file: "),
        (None, "--config ovsam.toml: cannot be read: No such file or directory"),
    ],
)
def test_what_is_wrong_with_a_file(
    plan: Ovsam,
    write_config: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        write_config(text)
    done = plan("--vocab", "a,", "--config", "ovsam.toml")
    assert done.exit_code == 2
    assert message in done.stderr.replace("\n", "")


def test_what_is_wrong_with_the_environment(plan: Ovsam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSAM_LABEL_TOP_K", "many")
    done = plan("--vocab", "a,")
    assert done.exit_code == 2
    assert "'--top-k' (from OVSAM_LABEL_TOP_K): 'many' is not a whole number." in done.stderr


def test_commands_of_groups_have_tables_too(ovsam: Ovsam, write_config: Write) -> None:
    arguments = ("train", "sam2clip", "images", "run", "--trunk", "t.pt", "--config")
    done = ovsam(*arguments, write_config("[train.sam2clip]\nepochs = 0"))
    assert "'--epochs' (from" in done.stderr and "'0' is not in the range 1..." in done.stderr
    done = ovsam(*arguments, write_config("[train.sam2klip]\nepochs = 1"))
    assert "'sam2klip' is no command; did you mean 'sam2clip'?" in done.stderr


def test_help_reads_no_file(ovsam: Ovsam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSAM_CONFIG", "nowhere.toml")
    monkeypatch.setenv("OVSAM_LABEL_GRID", "many")
    done = ovsam("label", "--help")
    assert done.exit_code == 0
    assert "--config" in done.stdout and "OVSAM_LABEL_GRID" not in done.stdout


def test_verbose_names_settings_in_force_unseen(
    ovsam: Ovsam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command with -q has -v, whether it says more itself or not."""
    monkeypatch.setenv("OVSAM_DOCTOR_OUT", str(tmp_path))
    done = ovsam("doctor", "-v")
    assert "out is set by the environment" in done.stderr.splitlines()
    assert " s, at most " in done.stderr and " MiB of memory; ovsam " in done.stderr
    assert " MiB of memory" not in ovsam("doctor", "-v", "-q").stderr
    monkeypatch.setenv("OVSAM_DOCTOR_VERBOSE", "1")
    assert " MiB of memory" in ovsam("doctor").stderr
    assert ovsam("doctor", "--json").stderr == ""


@pytest.mark.parametrize(
    "words",
    [
        ("label",),
        ("eval", "prompted"),
        ("eval", "grid"),
        ("eval", "detections"),
        ("train", "scenes"),
        ("train", "clip2sam"),
        ("export", "coco"),
        ("export", "yolo-seg"),
        ("bench",),
        ("models", "download"),
    ],
)
def test_quiet_and_verbose_everywhere(ovsam: Ovsam, words: tuple[str, ...]) -> None:
    shown = ovsam(*words, "--help").stdout
    assert "-v, --verbose" in shown and "-q, --quiet" in shown


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("OVSAM_DOCTOR_OTU", "sets nothing; did you mean OVSAM_DOCTOR_OUT?"),
        ("OVSAM_CASHE", "sets nothing; did you mean OVSAM_CACHE?"),
        ("OVSAM_DOKTOR_OUT", "sets nothing; did you mean OVSAM_DOCTOR_OUT?"),
        ("OVSAM_THINGS", "sets nothing; see docs/settings.md"),
    ],
)
def test_mistyped_variables_are_told(
    ovsam: Ovsam, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.setenv(name, "x")
    (line,) = ovsam("doctor").stderr.splitlines()
    assert line.startswith(f"warning: {name} is no variable") and line.endswith(message)
    assert ovsam("doctor", "-q").stderr == ""
    assert ovsam("doctor", "--help").stderr == ""


def test_a_mistyped_variable_is_told_before_what_is_missing(
    ovsam: Ovsam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVSAM_LABEL_VOCAP", "cat, dog")
    warning, *_, error = ovsam("label", "images/", "--out", "out").stderr.splitlines()
    assert warning.endswith("did you mean OVSAM_LABEL_VOCAB?")
    assert "Missing option '--vocab'." in error
    monkeypatch.setenv("RANK", "1")  # of torchrun's processes the first one speaks
    assert "warning" not in ovsam("label", "images/", "--out", "out").stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OVSAM_LABEL_GIRD", "4"),  # `ovsam label` will say it
        ("OVSAM_DOCTOR_OTU", ""),
        ("OVSAM_PORT_80_TCP", "tcp://10.0.0.1:80"),  # Kubernetes, of a service called ovsam
        ("OVSAM_SERVICE_HOST", "10.0.0.1"),
    ],
)
def test_other_variables_are_not_told(
    ovsam: Ovsam, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert ovsam("doctor").stderr == ""


def test_variables_of_commands_whose_names_begin_alike(
    ovsam: Ovsam, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`export coco` leaves those of `export coco-results` alone, which finds its own."""
    monkeypatch.setenv("OVSAM_EXPORT_COCO_RESULTS_OTU", "x")
    nothing = tmp_path / "nothing"
    assert "warning" not in ovsam("export", "coco", nothing, "--out", "a.json").stderr
    told = ovsam("export", "coco-results", nothing, "--out", "a.json").stderr
    assert "did you mean OVSAM_EXPORT_COCO_RESULTS_OUT?" in told
