"""Commands that start fast: plain help, and mistakes of usage found before values are converted.

Typer converts values by pydantic and draws help and errors by rich; each of these two imports takes
longer than everything else that a mistyped command or a `--help` needs.
"""

from __future__ import annotations

import inspect
from types import UnionType
from typing import TYPE_CHECKING, Literal, Union, get_args, get_origin, get_type_hints

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter, Parameter

_NUMBERS: dict[type[int] | type[float], str] = {int: "a whole number", float: "a number"}


class PlainCommand(TyperCommand):
    """A command whose help groups the options by their panels, without rich."""

    def get_params(self, ctx: Context) -> list[Parameter]:
        """The parameters, flags without a default made False."""
        return _with_false_flags(super().get_params(ctx))

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Check first what needs no slow import, then parse as always."""
        parser = self.make_parser(ctx)
        given, rest, _ = parser.parse_args(args=list(args))
        is_help_wanted = any(given.get(name) for name in ("help", "version"))
        if not is_help_wanted and not ctx.resilient_parsing:
            if rest and not ctx.allow_extra_args:
                ctx.fail(f"Got unexpected extra argument(s) ({' '.join(rest)})")
            kinds = get_type_hints(inspect.unwrap(self.callback)) if self.callback else {}
            for param in self.get_params(ctx):
                _check_param(ctx, param, given.get(param.name), kinds.get(param.name))
        return super().parse_args(ctx, args)

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


def _check_param(ctx: Context, param: Parameter, given: object, kind: object) -> None:
    """Fail as typer would: a value is missing, no number, out of range or none of the choices."""
    if not isinstance(param, TyperArgument | TyperOption):
        return
    hint = " / ".join(map(repr, param.opts))
    if given in (None, (), []):
        has_other = param.default is not None or param.envvar is not None
        if param.required and not has_other:
            ctx.fail(f"Missing {param.param_type_name} {hint}.")
        return
    for text in given if isinstance(given, list | tuple) else [given]:
        fault = _find_fault(param, text, _strip_optional(kind)) if isinstance(text, str) else ""
        if fault:
            ctx.fail(f"Invalid value for {hint}: {text!r} is {fault}.")


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
