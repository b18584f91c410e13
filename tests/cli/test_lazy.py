"""Commands are imported when asked for, and mistakes are told as Typer tells them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from typer.testing import Result

from ovsam_cli.cli.lazy import COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_quotes_the_command_itself(name: str) -> None:
    command = COMMANDS[name].load(name)
    assert command.help is not None
    assert COMMANDS[name].help == command.help.splitlines()[0]


def test_help_lists_every_command(ovsam: Callable[..., Result]) -> None:
    shown = ovsam("--help").stdout
    for name, command in COMMANDS.items():
        assert name in shown
        assert command.help.split()[0] in shown
    assert "--install-completion" in shown


def test_options_stand_under_their_panels(ovsam: Callable[..., Result]) -> None:
    lines = ovsam("label", "--help").stdout.splitlines()
    titles = ["Arguments:", "Options:", "Model and speed:", "Masks and names:", "Output files:"]
    assert [line for line in lines if line in titles] == titles
    assert lines.index("Model and speed:") < next(
        number for number, line in enumerate(lines) if line.startswith("  --devices")
    )


ANYTHING = ("x", "--vocab", "a,", "--out", "b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lable",), "No such command 'lable'. Did you mean 'label'?"),
        (("label",), "Missing argument 'images'."),
        (("label", "x", "--out", "b"), "Missing option '--vocab'."),
        (("label", *ANYTHING, "--bogus"), "No such option: --bogus"),
        (("label", *ANYTHING, "--grid", "many"), "'--grid': 'many' is not a whole number."),
        (("label", *ANYTHING, "--grid", "257"), "'--grid': '257' is not in the range 1..256."),
        (("label", *ANYTHING, "--top-k", "-1"), "'--top-k': '-1' is not in the range 0..."),
        (("label", *ANYTHING, "--nms-iou", "x"), "'--nms-iou': 'x' is not a number."),
        (
            ("label", *ANYTHING, "--dtype", "int8"),
            "'--dtype': 'int8' is not one of 'auto', 'float32', 'bfloat16'.",
        ),
        (("embed-vocab", "a,", "b,"), "Got unexpected extra argument(s) (b,)"),
    ],
)
def test_mistakes_of_usage(
    ovsam: Callable[..., Result], arguments: tuple[str, ...], message: str
) -> None:
    done = ovsam(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_optional_numbers_are_checked_too(ovsam: Callable[..., Result]) -> None:
    done = ovsam("label", *ANYTHING, "--min-stability", "1.5")
    assert done.exit_code == 2
    assert "'1.5' is not in the range 0..1." in done.stderr
