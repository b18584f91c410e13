"""Commands that start fast: plain help, and mistakes of usage found before values are converted.

Typer converts values by pydantic and draws help and errors by rich; each of these two imports takes
longer than everything else that a mistyped command or a `--help` needs.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from copy import copy
from functools import cache
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Literal, Union, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter, Parameter

ENVIRONMENT_PREFIX = "OVSAM"
# Where a command's context has the path of its --config, and whether -v was given.
CONFIG_META, VERBOSE_META = "ovsam.config", "ovsam.verbose"
_NUMBERS: dict[type[int] | type[float], str] = {int: "a whole number", float: "a number"}


class PlainCommand(TyperCommand):
    """A command whose help groups the options by their panels, without rich."""

    def get_params(self, ctx: Context) -> list[Parameter]:
        """The parameters with --config; options can stand in the environment too."""
        own = _with_false_flags(super().get_params(ctx))
        names = {param.name for param in own}
        if "quiet" in names and "verbose" not in names:
            own.insert(-1, copy(_verbose_option()))
        path = command_names(ctx)
        for param in own:
            if isinstance(param, TyperOption) and path and param.name != "help":
                name = next(iter(long_names(param)), param.name)
                param.envvar = name_variable([*path, name])
                param.show_envvar = False  # one rule for all; a line an option says nothing more
        return [*own[:-1], _config_option(), *own[-1:]]  # --help stays the last

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Check first what needs no slow import, then parse as always."""
        parser = self.make_parser(ctx)
        given, rest, _ = parser.parse_args(args=list(args))
        is_help_wanted = any(given.get(name) for name in ("help", "version"))
        if not is_help_wanted and not ctx.resilient_parsing:
            if rest and not ctx.allow_extra_args:
                ctx.fail(f"Got unexpected extra argument(s) ({' '.join(rest)})")
            params = self.get_params(ctx)
            if not given.get("quiet"):
                _warn_of_unknown_variables(ctx, params)  # first: what is missing may be mistyped
            _read_config(ctx, params, given.get(_config_option().name))
            kinds = get_type_hints(inspect.unwrap(self.callback)) if self.callback else {}
            for param in params:
                _check_param(ctx, param, given.get(param.name), kinds.get(param.name))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Context) -> object:
        """Run the command; with `-v` say more before and after."""
        if not (ctx.params.get("verbose") or ctx.meta.get(VERBOSE_META)):
            return super().invoke(ctx)
        from ovsam_cli.cli.verbose import tell_more

        with tell_more(ctx):
            return super().invoke(ctx)

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Write arguments, then options under the titles of their panels."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                is_argument = param.param_type_name == "argument"
                panel = getattr(param, "rich_help_panel", None)
                groups.setdefault("Arguments" if is_argument else panel or "Options", []).append(
                    record
                )
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


class PlainGroup(TyperGroup):
    """A group of commands that asks for no conversion of its own flags."""

    def get_params(self, ctx: Context) -> list[Parameter]:
        """The parameters, flags without a default made False."""
        return _with_false_flags(super().get_params(ctx))


def _with_false_flags(params: list[Parameter]) -> list[Parameter]:
    """Typer's own flags, such as --help, have the default None, which it would convert."""
    for param in params:
        if param.default is None and getattr(param, "is_bool_flag", False):
            param.default = False
    return params


def long_names(param: Parameter) -> list[str]:
    """Names of an option without their dashes, as configuration files have them."""
    return [name.removeprefix("--") for name in param.opts if name.startswith("--")]


def command_names(ctx: Context) -> list[str]:
    """The words that lead to a command, the program's name left out: `train`, `sam2clip`."""
    found: list[str] = []
    place: Context | None = ctx
    while place is not None and place.parent is not None:
        found.insert(0, place.info_name or "")
        place = place.parent
    return found


def name_variable(words: Sequence[str]) -> str:
    """The environment's name of a command's words, or of those and an option."""
    return "_".join([ENVIRONMENT_PREFIX, *words]).upper().replace("-", "_")


def _warn_of_unknown_variables(ctx: Context, params: list[Parameter]) -> None:
    """A line on stderr for each `OVSAM_` variable that sets nothing."""
    if not any(name.startswith(f"{ENVIRONMENT_PREFIX}_") for name in os.environ):
        return
    from ovsam_cli.cli.environment import describe_unknown
    from ovsam_cli.cli.progress import is_first_rank

    for line in describe_unknown(os.environ, ctx, params) if is_first_rank() else ():
        typer.echo(f"warning: {line}", err=True)


@cache
def _config_option() -> TyperOption:
    """Every command's --config; its value is not handed to the command."""
    option = _make_option(_take_config)
    option.envvar = f"{ENVIRONMENT_PREFIX}_CONFIG"
    option.show_envvar = False
    return option


@cache
def _verbose_option() -> TyperOption:
    """The -v of commands that say nothing more themselves."""
    return _make_option(_take_verbose)


def _make_option(function: Callable[..., None]) -> TyperOption:
    """The only option of a function, for commands that are not handed its value."""
    app = typer.Typer(add_completion=False)
    app.command()(function)
    (option,) = typer.main.get_command(app).params
    assert isinstance(option, TyperOption)
    option.expose_value = False
    return option


def _take_config(
    config: Annotated[
        str | None, typer.Option(help="TOML file of options: a table a command.")
    ] = None,
) -> None:
    """Have the form of a command that takes --config."""


def _note_verbose(ctx: typer.Context, is_wanted: bool) -> None:
    ctx.meta[VERBOSE_META] = is_wanted


def _take_verbose(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Say more.", callback=_note_verbose)
    ] = False,
) -> None:
    """Have the form of a command that takes --verbose."""


def _read_config(ctx: Context, params: list[Parameter], given: object) -> None:
    """Make what a configuration file says the command's defaults."""
    path = given or _config_option().value_from_envvar(ctx)
    if not isinstance(path, str):
        return
    from ovsam_cli.cli.config_file import read_config
    from ovsam_cli.errors import InputError

    try:
        ctx.default_map = {**read_config(path, ctx, params)}
    except InputError as error:
        ctx.fail(str(error))
    ctx.meta[CONFIG_META] = path


def _check_param(ctx: Context, param: Parameter, given: object, kind: object) -> None:
    """Fail as typer would: a value is missing, no number, out of range or none of the choices."""
    if not isinstance(param, TyperArgument | TyperOption):
        return
    hint = " / ".join(map(repr, param.opts))
    if given in (None, (), []):
        given, source = _find_elsewhere(ctx, param)
        hint += f" (from {source})" if source else ""
    if given in (None, (), []):
        if param.required and param.default is None:
            ctx.fail(f"Missing {param.param_type_name} {hint}.")
        return
    for text in given if isinstance(given, list | tuple) else [given]:
        fault = _find_fault(param, text, _strip_optional(kind)) if isinstance(text, str) else ""
        if fault:
            ctx.fail(f"Invalid value for {hint}: {text!r} is {fault}.")


def _find_elsewhere(ctx: Context, param: TyperArgument | TyperOption) -> tuple[object, str]:
    """A value from the environment, else from the configuration file, and where it stands."""
    value: object = param.value_from_envvar(ctx)
    if value is not None:
        return value, str(param.envvar)
    value = ctx.lookup_default(param.name)
    return value, "" if value is None else str(ctx.meta.get(CONFIG_META, ""))


def _strip_optional(kind: object) -> object:
    """The type itself of `T | None`."""
    if get_origin(kind) in (Union, UnionType):
        kinds = [one for one in get_args(kind) if one is not type(None)]
        return kinds[0] if len(kinds) == 1 else None
    return kind


def _find_fault(param: TyperArgument | TyperOption, text: str, kind: object) -> str:
    """What is wrong with a value given as text; nothing for types that are not looked at here."""
    if get_origin(kind) is Literal:
        choices = [str(one) for one in get_args(kind)]
        return "" if text in choices else f"not one of {', '.join(map(repr, choices))}"
    for number, description in _NUMBERS.items():
        if kind is number:
            try:
                value = number(text)
            except ValueError:
                return f"not {description}"
            return _find_range_fault(param, value)
    return ""


def _find_range_fault(param: TyperArgument | TyperOption, value: float) -> str:
    low, high = getattr(param, "min", None), getattr(param, "max", None)
    if (low is None or value >= low) and (high is None or value <= high):
        return ""
    return f"not in the range {'' if low is None else low}..{'' if high is None else high}"
