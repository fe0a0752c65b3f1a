"""A plugin that takes long to import costs nothing before something of it is used."""

from __future__ import annotations

import pytest

# In place of seconds, a line in a file for each import: it is there, or it is not.
SLOW = """
import os
with open(os.environ["SLOW_IMPORTED"], "a") as notes:
    notes.write("x")
import click
from adapterhub import hookimpl, specs

@hookimpl
def adapterhub_commands():
    yield specs.Command(name="slow", summary="A command", impl=__name__ + ":run")

@hookimpl
def adapterhub_merge_rules():
    rule = __name__ + ":merge"
    yield specs.MergeRule(name="slow", summary="A rule", impl=rule, spaces=("dense",))

@hookimpl
def adapterhub_metrics():
    yield specs.Metric(name="slow", summary="A metric", impl=__name__ + ":score")

@hookimpl
def adapterhub_engines():
    yield specs.Engine(name="slow", summary="An engine", impl=__name__ + ":Engine", priority=-1)

@click.command()
def run():
    print("used")

def score(answer, reference):
    return 1.0

def merge(deltas, weights, coordinates, options):
    return deltas.sum(dim=0)
"""

UNUSED = [
    ("--help",),
    ("--version",),
    ("ls",),
    ("ls", "--json"),
    ("base", "ls"),
    ("show", "tiny-a"),
    ("log", "tiny-a"),
    ("tag", "tiny-a", "prod"),
    ("gc", "--dry-run"),
    ("train", "--help"),
    ("serve", "--help"),
    ("eval", "--help"),
    ("merge", "--help"),
    ("merge", "--linear", "tiny-a", "tiny-b", "--name", "both"),
    ("export", "tiny-a", "{folder}/exported"),
    ("push", "tiny-a", "--to", "file://{folder}/share"),
    ("ls", "--remote", "file://{folder}/share"),
]


@pytest.fixture
def imports(with_plugin, tiny_adapters, adz_process, tmp_path, monkeypatch):
    """How often the plugin was imported since it was installed and listed once."""
    notes = tmp_path / "imported"
    notes.touch()
    monkeypatch.setenv("SLOW_IMPORTED", str(notes))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with_plugin(SLOW)
    assert adz_process("ls").code == 0
    assert notes.read_text() == "x"
    return lambda: len(notes.read_text()) - 1


def test_who_does_not_use_it_does_not_import_it(imports, adz, tmp_path):
    from adapterhub.plugins import load_plugins

    for words in UNUSED:
        # As a new process begins: nothing is known but what the cache remembers.
        load_plugins.cache_clear()
        done = adz(*(word.format(folder=tmp_path) for word in words))
        assert done.code == 0, done.err
        assert imports() == 0, f"adz {' '.join(words)} imports a plugin that it does not use"


@pytest.mark.parametrize("words", [("--help",), ("ls",)], ids=" ".join)
def test_nor_does_a_process_of_its_own(imports, adz_process, words):
    done = adz_process(*words)
    assert done.code == 0, done.err
    assert imports() == 0
    assert words != ("--help",) or "A command" in done.out


def test_who_uses_it_does(imports, adz_process):
    assert adz_process("slow").out == "used\n"
    assert imports() == 1
