"""Every hook has an example in its docstring, and every example runs."""

from __future__ import annotations

import inspect
import re
import textwrap
import warnings
from dataclasses import fields
from types import ModuleType, SimpleNamespace

import pluggy
import pytest

from adapterhub import AdzError, hookimpl, hookspecs, plugin_checks, specs
from adapterhub.plugin_hooks import KINDS

HOOKS = {n: f for n, f in vars(hookspecs).items() if n.startswith("adapterhub_")}


def example_of(hook):
    text = inspect.getdoc(HOOKS[hook])
    assert text is not None
    return textwrap.dedent(text.partition("Example:\n")[2])


def plugin_from(source):
    module = ModuleType("an_example")
    module.__dict__.update(hookimpl=hookimpl, specs=specs, AdzError=AdzError)
    exec(source, module.__dict__)
    return module


def managed(hook):
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin_from(example_of(hook)))
    manager.check_pending()
    return getattr(manager.hook, hook)


@pytest.mark.parametrize("hook", HOOKS)
def test_example_implements_its_own_hook(hook):
    assert len(managed(hook).get_hookimpls()) == 1


@pytest.mark.parametrize(("kind", "hook"), [(kind, hook) for kind, (hook, _) in KINDS.items()])
def test_example_returns_the_descriptor_of_its_kind(kind, hook):
    components = [c for result in managed(hook)() for c in result]
    assert [type(c) for c in components] == [kind]


def test_every_hook_is_a_kind_or_an_event():
    events = {n for n in HOOKS if n.startswith(("adapterhub_before_", "adapterhub_after_"))}
    assert set(HOOKS) == {hook for hook, _ in KINDS.values()} | events


def test_example_of_before_train_refuses():
    def run(name):
        return SimpleNamespace(recipe=SimpleNamespace(data=SimpleNamespace(
            train=SimpleNamespace(name=name))))  # fmt: skip

    managed("adapterhub_before_train")(run=run("fine.jsonl"))
    with pytest.raises(AdzError):
        managed("adapterhub_before_train")(run=run("secret.jsonl"))


def test_example_of_after_train_reads_the_loss(capsys):
    managed("adapterhub_after_train")(run=None, result={"train_loss": 0.25})
    assert capsys.readouterr().out == "0.25\n"


def test_example_of_before_commit_refuses():
    managed("adapterhub_before_commit")(manifest=SimpleNamespace(data=({"file": "a"},)))
    with pytest.raises(AdzError):
        managed("adapterhub_before_commit")(manifest=SimpleNamespace(data=()))


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_says_since_when(hook):
    text = inspect.getdoc(HOOKS[hook]) or ""
    assert re.search(r"Added in adapterhub \d+\.\d+ \(hook API \d+\)\.", text)


def test_a_deprecated_hook_works_and_is_one_line():
    warning = hookspecs.HookDeprecationWarning(
        "adapterhub_old", since="0.9", instead="adapterhub_metrics"
    )
    marked = hookspecs.hookspec(warn_on_impl=warning)

    class Specs:
        @marked
        def adapterhub_old(self):
            pass

    class Plugin:
        @hookimpl
        def adapterhub_old(self):
            return "still works"

    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(Specs)
    assert plugin_checks.register(manager, Plugin(), "old") == [
        "adapterhub_old is deprecated since adapterhub 0.9 and goes in 0.11: use adapterhub_metrics"
    ]
    assert manager.hook.adapterhub_old() == ["still works"]


def test_what_else_is_warned_of_meanwhile_is_not_the_plugins():
    class Manager(pluggy.PluginManager):
        def register(self, plugin, name=None):
            warnings.warn("unclosed socket", ResourceWarning, stacklevel=2)
            return super().register(plugin, name)

    assert plugin_checks.register(Manager(hookspecs.PROJECT), object(), "innocent") == []


METRICS = """
from adapterhub import hookimpl, specs

@hookimpl
def adapterhub_metrics():
    yield specs.Metric(name="loss", summary="Less", impl="a:b", higher_is_better=False)
    yield specs.Metric(name="gain", summary="More", impl="a:b")
"""


def test_a_deprecated_field_works_and_is_one_line(adz, with_plugin, monkeypatch):
    (field,) = (f for f in fields(specs.Metric) if f.name == "higher_is_better")
    told = {"since": "0.9", "instead": "direction"}
    monkeypatch.setattr(field, "metadata", {specs.DEPRECATED: told})
    with_plugin(METRICS)
    done = adz("plugins")
    (line,) = [line for line in done.err.splitlines() if "deprecated" in line]
    assert line.endswith(
        "higher_is_better of specs.Metric (loss) is deprecated since adapterhub 0.9 and goes in "
        "0.11: use direction"
    )
    assert "metric: loss, gain" in done.out
