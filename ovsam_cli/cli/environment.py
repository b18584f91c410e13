"""Variables of the environment that begin as ours do and are none: mistyped, or of another time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

from typer.core import TyperGroup

from ovsam_cli.cli.usage import ENVIRONMENT_PREFIX, command_names, name_variable

if TYPE_CHECKING:
    from typer._click import Context, Parameter

_START = f"{ENVIRONMENT_PREFIX}_"
OF_ALL_COMMANDS = ("OVSAM_CACHE", "OVSAM_CONFIG")
# Kubernetes sets these in every container where a service is called "ovsam".
_OF_KUBERNETES = re.compile(rf"{_START}(SERVICE|PORT)(_|$)")


def describe_unknown(
    environment: Mapping[str, str], ctx: Context, params: Iterable[Parameter]
) -> Iterator[str]:
    """A line for each variable that begins with `OVSAM_` and sets nothing.

    Those of other commands are left to them, so that nothing is imported for this.

    Args:
        environment: names and values; an empty value counts as none.
        ctx: of the running command.
        params: of that command.
    """
    known = {*OF_ALL_COMMANDS, *(str(param.envvar) for param in params if param.envvar)}
    own = name_variable(command_names(ctx))
    prefixes = {own, *_list_others(ctx)}
    for name, value in sorted(environment.items()):
        if not value or not name.startswith(_START) or name in known:
            continue
        owners = [one for one in prefixes if name.startswith(f"{one}_")]
        if _OF_KUBERNETES.match(name) or (owners and max(owners, key=len) != own):
            continue
        ends = [one.removeprefix(_START) for one in known]
        near = get_close_matches(name.removeprefix(_START), ends, n=1)
        hint = f"did you mean {_START}{near[0]}?" if near else "see docs/settings.md"
        yield f"{name} is no variable of this program and sets nothing; {hint}"


def _list_others(ctx: Context) -> Iterator[str]:
    """What the variables of all other commands begin with."""
    words = command_names(ctx)
    place, depth = ctx.parent, len(words)
    while place is not None and depth:
        depth -= 1
        if isinstance(place.command, TyperGroup):
            for name in place.command.list_commands(place):
                if name != words[depth]:
                    yield name_variable([*words[:depth], name])
        place = place.parent
