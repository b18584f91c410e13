"""`--config FILE`: options from a TOML file with a table a command, below environment and flags."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from typer.core import TyperArgument, TyperGroup, TyperOption

from ovsam_cli.cli.usage import CONFIG_META, command_names, long_names
from ovsam_cli.errors import InputError

if TYPE_CHECKING:
    from typer._click import Context, Parameter

    from ovsam_cli.outputs.json_values import JsonValue

Text: TypeAlias = "str | bool | list[str]"
# Arguments and options that stand for themselves, not for how a command works.
NOT_SETTABLE = {"help", "config", "version"}
SOURCE_WORDS = {"COMMANDLINE": "flag", "ENVIRONMENT": "environment", "DEFAULT_MAP": "config"}


def read_config(path: str, ctx: Context, params: Sequence[Parameter]) -> dict[str, Text]:
    """The options that a file has for a command, by the names of the command's parameters.

    Args:
        path: of the TOML file.
        ctx: of the command; its parents name the tables that lead to it.
        params: of the command.

    Returns:
        Values as they would stand on the command line; flags are booleans.

    Raises:
        InputError: the file cannot be read, or holds a table, key or value of no use.
    """
    table = _find_table(path, _read_toml(path), ctx)
    known = {
        name: param
        for param in params
        if isinstance(param, TyperOption) and param.name not in NOT_SETTABLE
        for name in long_names(param)
    }
    where = f"{path}: [{'.'.join(command_names(ctx))}]"
    found = {}
    for key, value in table.items():
        if key not in known:
            raise InputError(f"{where}: {key!r} is no option{_suggest(key, known)}")
        found[known[key].name] = _to_text(f"{where} {key}", known[key], value)
    return found


def _read_toml(path: str) -> dict[str, object]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path}: cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path}: is no TOML file: {error}") from error


def _find_table(path: str, content: dict[str, object], ctx: Context) -> Mapping[str, object]:
    """The command's own table; every table beside the way to it must be a command too."""
    table: object = content
    contexts: list[Context] = []
    parent = ctx.parent
    while parent is not None:
        contexts.insert(0, parent)
        parent = parent.parent
    for group, name in zip(contexts, command_names(ctx), strict=True):
        if not isinstance(table, dict):
            raise InputError(f"{path}: {group.info_name!r} must be a table, [{group.info_name}]")
        known = group.command.list_commands(group) if isinstance(group.command, TyperGroup) else []
        for key in table:
            if key not in known:
                raise InputError(
                    f"{path}: {key!r} is no command{_suggest(key, known)}; options stand in the "
                    f"table of their command: [{'.'.join(command_names(ctx))}]"
                )
        table = table.get(name, {})
    if not isinstance(table, dict):
        raise InputError(f"{path}: {ctx.info_name!r} must be a table, [{ctx.info_name}]")
    return table


def _suggest(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    """The nearest of the known names."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known))}"


def _to_text(where: str, option: TyperOption, value: object) -> Text:
    """A TOML value as the command line would have it."""
    if option.is_bool_flag:
        if isinstance(value, bool):
            return value
        raise InputError(f"{where}: {value!r} is neither true nor false")
    if option.multiple:
        many = value if isinstance(value, list) else [value]
        return [_scalar_text(where, one) for one in many]
    return _scalar_text(where, value)


def _scalar_text(where: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{where}: {value!r} is neither text nor a number")
    return str(value)


def describe_settings(ctx: Context) -> dict[str, JsonValue]:
    """What a command works with, for its record: every value, and who set those that were set.

    Args:
        ctx: of the running command.
    """
    values: dict[str, JsonValue] = {}
    sources: dict[str, JsonValue] = {}
    for param in ctx.command.get_params(ctx):
        if not isinstance(param, TyperOption | TyperArgument) or param.name not in ctx.params:
            continue
        name = next(iter(long_names(param)), param.name)
        value = ctx.params[param.name]
        values[name] = value if isinstance(value, bool | int | float | None) else _plain(value)
        source = ctx.get_parameter_source(param.name)
        if source is not None and source.name in SOURCE_WORDS:
            sources[name] = SOURCE_WORDS[source.name]
    return {"config": ctx.meta.get(CONFIG_META), "options": values, "set_by": sources}


def _plain(value: object) -> JsonValue:
    if isinstance(value, list | tuple):
        return [str(one) for one in value]
    return str(value)
