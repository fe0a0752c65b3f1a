"""Where an option's value comes from: flag, then ADZ_* variable, then config.yaml, then default."""

from __future__ import annotations

import sys
from types import ModuleType

import click
import pytest

from adapterhub import cli
from adapterhub.errors import EXIT_USAGE


@pytest.fixture
def echo_port(monkeypatch):
    """A command `adz plugins` that prints where its port comes from."""

    @click.command()
    @click.option("--port", type=int, default=1)
    @click.option("--api-key")
    @click.pass_context
    def command(ctx, port, api_key):
        click.echo(f"{port} {api_key} {ctx.get_parameter_source('port').name}")

    module = ModuleType("adapterhub.cli.plugins")
    module.command = command
    monkeypatch.setitem(sys.modules, "adapterhub.cli.plugins", module)
    assert "plugins" in cli.COMMANDS


def write_config(home, text):
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.yaml").write_text(text)


def test_default_then_file_then_variable_then_flag(home, adz, echo_port, monkeypatch):
    assert adz("plugins").out == "1 None DEFAULT\n"
    write_config(home, "plugins: {port: 2, api-key: k}\n")
    assert adz("plugins").out == "2 k DEFAULT_MAP\n"
    monkeypatch.setenv("ADZ_PLUGINS_PORT", "3")
    assert adz("plugins").out == "3 k ENVIRONMENT\n"
    assert adz("plugins", "--port", "4").out == "4 k COMMANDLINE\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plugin: {port: 2}", "unknown command 'plugin' (did you mean plugins?)"),
        ("plugins: {prt: 2}", "unknown option of plugins 'prt' (did you mean port?)"),
        ("plugins: 7", "plugins is not a mapping of options, got 7"),
        ("base: {ad: {}}", "unknown command of base 'ad' (did you mean add?)"),
        ("plugins: }", "malformed at line 1"),
        ("- a", "is not a mapping of options"),
    ],
)
def test_mistake_in_the_file_is_one_line_that_names_it(home, adz, echo_port, text, message):
    write_config(home, text + "\n")
    done = adz("base" if text.startswith("base") else "plugins", *["ls"] * text.startswith("base"))
    assert (done.code, done.out) == (EXIT_USAGE, "")
    assert done.err.count("\n") == 1
    assert message in done.err
    assert str(home / "config.yaml") in done.err


def test_value_of_the_wrong_type_is_one_line(home, adz, echo_port):
    write_config(home, "plugins: {port: high}\n")
    done = adz("plugins")
    assert done.code == EXIT_USAGE
    assert "'high' is not a valid integer" in done.err
