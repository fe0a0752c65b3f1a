"""Defaults of a user's own: `$ADZ_HOME/config.yaml` gives an option a value for every call.

    serve:
      port: 9000
      api-key: secret

A flag wins over its environment variable (`ADZ_SERVE_PORT`), that over this file, and this
over the default. The names are those of the flags; one that no command has is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from adapterhub.errors import AdzError, unknown_name, usage_error

T = TypeVar("T")


def user_defaults(context: click.Context, group: click.Group) -> dict[str, Any]:
    """What the file says, checked and as click's `default_map`. Only the options of the
    command that is about to run are checked: checking all would import all."""
    if not defaults_file().exists():
        return {}
    values = _read(context, group)
    called = context.invoked_subcommand
    return _checked(context, group, {called: values[called]}) if called in values else {}


def read_defaults(context: click.Context, group: click.Group) -> dict[str, Any]:
    """What the file says of every command, checked, with the names of the flags."""
    values = _read(context, group)
    _checked(context, group, values)
    return values


def defaults_file() -> Path:
    """`$ADZ_HOME/config.yaml`."""
    from adapterhub.home import adz_home

    return adz_home() / "config.yaml"


def _read(context: click.Context, group: click.Group) -> dict[str, Any]:
    from adapterhub.config import read_recipe

    values = read_recipe(defaults_file())
    known = group.list_commands(context)
    for name in values:
        if name not in known:
            error = unknown_name("command", name, known)
            raise usage_error(f"{defaults_file()}: {error.message}", error.hint)
    return values


def _checked(
    context: click.Context, group: click.Group, values: Mapping[str, Any]
) -> dict[str, Any]:
    found = {}
    for name, options in values.items():
        command = group.get_command(context, name)
        try:
            found[name] = _options(context, command, options, name) if command else {}
        except AdzError as error:
            raise usage_error(f"{defaults_file()}: {error.message}", error.hint) from error
    return found


def _options(
    context: click.Context, command: click.Command, values: Any, path: str
) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise usage_error(f"{path} is not a mapping of options, got {values!r}")
    if isinstance(command, click.Group):
        parts = command.commands
        return {
            name: _options(context, _known(parts, name, "command", path), value, f"{path}.{name}")
            for name, value in values.items()
        }
    flags = {
        option.removeprefix("--"): parameter
        for parameter in command.get_params(context)
        for option in parameter.opts
        if option.startswith("--")
    }
    found = {}
    for name, value in values.items():
        parameter = _known(flags, name, "option", path)
        found[str(parameter.name)] = _value(context, parameter, value, f"{path}.{name}")
    return found


def _value(context: click.Context, parameter: click.Parameter, value: Any, path: str) -> Any:
    """The value where the option takes it. click itself names the flag, but not this file."""
    # A value alone is the first of an option that may be given several times.
    values = value if isinstance(value, list) else [value]
    flag = isinstance(parameter, click.Option) and parameter.is_flag
    wrong = len(values) != 1 and not parameter.multiple
    wrong = wrong or any(isinstance(one, Mapping | list | None) for one in values)
    if wrong or any(isinstance(one, bool) != flag for one in values):
        kind = "true or false" if flag else "a value" + " or a list" * parameter.multiple
        raise usage_error(f"{path} should be {kind}, got {value!r}")
    taken = values if parameter.multiple else values[0]
    try:
        parameter.type_cast_value(context, taken)
    except click.BadParameter as error:
        raise usage_error(f"{path}: {error.message.rstrip('.')}") from error
    return taken


def _known(known: Mapping[str, T], name: str, kind: str, path: str) -> T:
    if name not in known:
        raise unknown_name(f"{kind} of {path}", name, known)
    return known[name]
