"""What plugins offer is remembered: no import before use, and never what is stale."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from adapterhub import plugin_cache, specs
from adapterhub.entry_points import GROUP, find_entry_points
from adapterhub.errors import AdzError
from adapterhub.plugin_hooks import KINDS
from adapterhub.plugins import Plugins

SLOW = """
import os
open(os.environ["IMPORTED"], "a").write("x")
from adapterhub import AdzError, hookimpl, specs

@hookimpl
def adapterhub_metrics():
    yield specs.Metric(name="first", summary="One", impl="slow_plugin:score")

@hookimpl
def adapterhub_before_train(run):
    raise AdzError("not today")

def score(answer, reference):
    return 1.0
"""


@pytest.fixture
def slow(tmp_path, monkeypatch):
    """A plugin that notes each import; returns how often it was imported, and its file."""
    info = tmp_path / "slow-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: slow\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nslow = slow_plugin\n")
    file = tmp_path / "slow_plugin.py"
    file.write_text(SLOW)
    notes = tmp_path / "imported"
    notes.touch()
    monkeypatch.setenv("IMPORTED", str(notes))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    yield file, lambda: len(notes.read_text())
    sys.modules.pop("slow_plugin", None)


def restarted():
    """As a process of its own would find the plugins."""
    sys.modules.pop("slow_plugin", None)
    lines = []
    return Plugins(lines.append), lines


def test_plugin_is_imported_once_and_then_when_it_is_used(slow):
    _, imported = slow
    restarted()[0].components(specs.Metric)
    assert imported() == 1
    plugins, lines = restarted()
    assert plugins.components(specs.Metric)["first"].summary == "One"
    assert plugins.versions_of(plugins.get(specs.Metric, "first")) == {"slow": "1.0"}
    assert (imported(), lines) == (1, [])
    assert plugins.load_implementation(plugins.get(specs.Metric, "first"))("", "") == 1.0
    assert imported() == 2


def test_remembered_listener_refuses_all_the_same(slow):
    _, imported = slow
    restarted()[0].components(specs.Metric)
    plugins, _ = restarted()
    plugins.call_event("adapterhub_before_commit", manifest=None)
    assert imported() == 1
    with pytest.raises(AdzError, match="not today"):
        plugins.call_event("adapterhub_before_train", run=None)


def test_change_of_the_file_is_seen(slow):
    file, imported = slow
    restarted()[0].components(specs.Metric)
    file.write_text(SLOW.replace('"first"', '"other"'))
    os.utime(file, (1, 1))
    assert "other" in restarted()[0].components(specs.Metric)
    assert imported() == 2


def test_change_of_the_version_is_seen(slow):
    file, imported = slow
    restarted()[0].components(specs.Metric)
    (file.parent / "slow-1.0.dist-info" / "METADATA").write_text("Name: slow\nVersion: 2.0\n")
    plugins, _ = restarted()
    assert plugins.versions_of(plugins.get(specs.Metric, "first")) == {"slow": "2.0"}
    assert imported() == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stamp": 1}', '{"entries": 3}'])
def test_broken_file_counts_as_empty(slow, content):
    restarted()[0].components(specs.Metric)
    cache = Path(plugin_cache._cache_file())
    cache.write_text(content)
    plugins, lines = restarted()
    assert "first" in plugins.components(specs.Metric)
    assert lines == []
    assert restarted()[0].components(specs.Metric)["first"]


def test_wrong_entry_counts_as_none(slow):
    restarted()[0].components(specs.Metric)
    cache = Path(plugin_cache._cache_file())
    cache.write_text(cache.read_text().replace('"class": "Metric"', '"class": "Nothing"'))
    assert "first" in restarted()[0].components(specs.Metric)


def test_folder_that_cannot_be_written_costs_nothing(slow, monkeypatch, tmp_path):
    (tmp_path / "a-file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a-file"))
    plugins, lines = restarted()
    assert "first" in plugins.components(specs.Metric)
    assert lines == []


def test_every_descriptor_of_ours_comes_back_equal(slow):
    first, _ = restarted()
    asked = {kind: [p.component for p in first.provided(kind)] for kind in KINDS}
    second, _ = restarted()
    for kind, components in asked.items():
        assert [p.component for p in second.provided(kind)] == components
    entries = find_entry_points(GROUP)
    assert not any(second._hooks.was_asked(entry) for entry in entries)
