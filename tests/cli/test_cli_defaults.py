"""Where an option's value comes from: flag, then ADZ_* variable, then config.yaml, then default."""

from __future__ import annotations

import json
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
    @click.option("--key", multiple=True)
    @click.option("--loud", is_flag=True)
    @click.pass_context
    def command(ctx, port, api_key, key, loud):
        words = [str(port), str(api_key), ctx.get_parameter_source("port").name, *key]
        click.echo(" ".join(words) + "!" * loud)

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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{port: high}", "plugins.port: 'high' is not a valid integer"),
        ("{port: [1, 2]}", "plugins.port should be a value, got [1, 2]"),
        ("{port: true}", "plugins.port should be a value, got True"),
        ("{port:}", "plugins.port should be a value, got None"),
        ("{api-key: {a: b}}", "plugins.api-key should be a value, got {'a': 'b'}"),
        ("{loud: 7}", "plugins.loud should be true or false, got 7"),
        ("{key: [a, [b]]}", "plugins.key should be a value or a list, got ['a', ['b']]"),
    ],
)
def test_value_of_the_wrong_type_is_one_line(home, adz, echo_port, text, message):
    write_config(home, f"plugins: {text}\n")
    done = adz("plugins")
    assert done.code == EXIT_USAGE
    assert done.err == f"adz: {home / 'config.yaml'}: {message}\n"


@pytest.mark.parametrize(("text", "keys"), [("[a, b]", "a b"), ("a", "a")])
def test_an_option_that_may_be_given_several_times_takes_a_list(home, adz, echo_port, text, keys):
    write_config(home, f"plugins: {{key: {text}, loud: true}}\n")
    assert adz("plugins").out == f"1 None DEFAULT {keys}!\n"


def test_a_rule_can_be_the_default(home, adz, commit_adapter):
    commit_adapter("a", seed=1)
    commit_adapter("b", seed=2)
    write_config(home, "merge: {ties: true}\n")
    merged = json.loads(adz("merge", "a", "b", "--dry-run", "--json").out)
    assert merged["rule"] == "ties"
    merged = json.loads(adz("merge", "a", "b", "--linear", "--dry-run", "--json").out)
    assert merged["rule"] == "linear"
    merged = json.loads(adz("merge", "a", "b", "-o", "rule=dare", "--dry-run", "--json").out)
    assert merged["rule"] == "dare"
