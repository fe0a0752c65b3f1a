"""The plugin loader: what works, and what a broken plugin costs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from adapterhub import specs
from adapterhub.errors import EXIT_USAGE, AdzError
from adapterhub.plugin_checks import check_hooks
from adapterhub.plugin_hooks import KINDS
from adapterhub.plugins import Plugins, load_plugins

DISTS = Path(__file__).parent.parent / "fixtures" / "dists"

BROKEN = {
    "import_error": ("failed", "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
    "misspelt_hook": (
        "failed",
        "there is no hook adapterhub_metric, did you mean adapterhub_metrics?",
    ),
    "raising_hook": ("failed", "RuntimeError: no rules today"),
    "incompatible": ("incompatible", "it needs adapterhub>=99, this is "),
    "rule_like_option": ("failed", "the rule 'density' is named like an option of adz merge"),
}


@pytest.fixture
def plugins_with(monkeypatch):
    """Load the plugins of this environment and those of some fixture distributions."""

    def load(*names):
        for name in names:
            monkeypatch.syspath_prepend(DISTS / name)
        lines = []
        return Plugins(lines.append), lines

    yield load
    for name in [n for n in sys.modules if n.startswith("adz_")]:
        del sys.modules[name]


def names_of(plugins):
    """Every component of every kind, by its kind and its name."""
    return {(kind, p.component.name) for kind in KINDS for p in plugins.provided(kind)}


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_plugin_costs_one_line_and_its_own_components(plugins_with, broken):
    without, _ = plugins_with()
    plugins, lines = plugins_with(broken)
    status, problem = BROKEN[broken]

    assert names_of(plugins) == names_of(without)
    record = plugins.records[-1]
    assert (record.name, record.status, record.components) == (f"adz_{broken}", status, {})
    assert problem in record.problem
    assert len(lines) == 1
    assert record.problem in lines[0]
    assert "\n" not in lines[0]
    assert f"adz-{broken.replace('_', '-')} 1.0" in lines[0]


def test_broken_plugins_are_reported_once_however_often_they_are_asked(plugins_with):
    plugins, lines = plugins_with(*BROKEN)
    for kind in KINDS:
        plugins.provided(kind)
    plugins.commands()
    plugins.call_event("adapterhub_before_train", run=None)
    assert plugins.records
    assert len(lines) == len(BROKEN)


def test_all_broken_at_once_leave_the_command_line_usable():
    paths = [str(DISTS / name) for name in (*BROKEN, "duplicate_name")]
    done = subprocess.run(
        [sys.executable, "-m", "adapterhub.cli", "--help"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "plugins" in done.stdout
    complaints = done.stderr.splitlines()
    assert len(complaints) == len(BROKEN)
    assert all(line.startswith("adz: plugin adz_") for line in complaints)


def test_name_that_we_have_stays_ours(plugins_with):
    plugins, lines = plugins_with("duplicate_name")
    ours = plugins.get(specs.Metric, "exact_match")
    assert ours.impl.startswith("adapterhub_metrics")
    assert plugins.components(specs.Metric)["exact_match"] is ours
    theirs = plugins.get(specs.Metric, "adz-duplicate-name:exact_match")
    assert plugins.load_implementation(theirs)("a", "a") == 0.0
    assert plugins.get(specs.Metric, "always_zero")
    assert lines == []
    assert plugins.records[-1].shared == {"metric": ["exact_match"]}
    assert plugins.name_of(ours) == "exact_match"
    assert plugins.name_of(theirs) == "adz-duplicate-name:exact_match"


def test_name_of_two_strangers_must_be_qualified(plugins_with):
    plugins, lines = plugins_with("healthy", "second_stranger")
    with pytest.raises(AdzError) as caught:
        plugins.get(specs.Metric, "length")
    assert caught.value.exit_code == EXIT_USAGE
    assert caught.value.message == "2 plugins provide the metric 'length'"
    assert caught.value.hint == "use adz-healthy:length or adz-second-stranger:length"
    words = plugins.get(specs.Metric, "adz-second-stranger:length")
    assert plugins.load_implementation(words)("two words", "") == 2.0
    assert plugins.name_of(words) == "adz-second-stranger:length"
    assert lines == []


def test_unknown_name_offers_the_nearest(plugins_with):
    plugins, _ = plugins_with("healthy")
    with pytest.raises(AdzError, match=r"unknown metric 'lenght' .did you mean length"):
        plugins.get(specs.Metric, "lenght")


def test_versions_of_names_the_distributions(plugins_with):
    plugins, _ = plugins_with("healthy")
    component = plugins.get(specs.Metric, "length")
    assert plugins.versions_of(component) == {"adz-healthy": "1.0"}


def test_command_of_a_plugin_is_a_command_of_adz():
    environment = {**os.environ, "PYTHONPATH": str(DISTS / "healthy")}
    command = [sys.executable, "-m", "adapterhub.cli"]
    shown = subprocess.run([*command, "--help"], env=environment, capture_output=True, text=True,
                           check=True)  # fmt: skip
    assert "hello" in shown.stdout
    assert "Greet somebody." in shown.stdout
    said = subprocess.run([*command, "hello", "world"], env=environment, capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert said.stdout == "hello world\n"


def test_before_hook_that_raises_refuses(plugins_with):
    plugins, _ = plugins_with("healthy")
    plugins.call_event("adapterhub_before_train", run="fine")
    with pytest.raises(AdzError, match=r"not this run .choose another"):
        plugins.call_event("adapterhub_before_train", run="refuse")
    with pytest.raises(AdzError) as caught:
        plugins.call_event("adapterhub_before_train", run="crash")
    assert caught.value.message == (
        "plugin adz-healthy:adz_healthy raised in adapterhub_before_train: "
        "ZeroDivisionError: a bug in the plugin"
    )


def test_after_hook_that_raises_loses_nothing(plugins_with):
    plugins, lines = plugins_with("healthy")
    plugins.call_event("adapterhub_after_train", run="fine", result={"train_loss": 0.5})
    assert len(lines) == 1
    assert "ValueError: after 0.5" in lines[0]


def test_our_plugins_load_and_import_nothing_heavy():
    code = """
        import sys
        from adapterhub.plugin_hooks import KINDS
        from adapterhub.plugins import load_plugins
        plugins = load_plugins()
        for kind in KINDS:
            plugins.provided(kind)
        assert all(r.status == "loaded" for r in plugins.records), plugins.records
        heavy = {"torch", "transformers", "peft", "trl", "vllm", "pydantic", "numpy"}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True,
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_our_implementations_and_options_exist(home):
    plugins = load_plugins()
    from pydantic import BaseModel

    for kind in KINDS:
        for provided in plugins.provided(kind):
            component = provided.component
            options = plugins.load_options(component)
            assert options is None or issubclass(options, BaseModel), component
            if not all(map(find_spec, component.requires)):
                with pytest.raises(AdzError, match=r"needs .* \(pip install"):
                    plugins.load_implementation(component)
                continue
            assert plugins.load_implementation(component) is not None


def test_missing_requirement_says_what_to_install(home):
    component = specs.Metric(
        name="far", summary="", impl="x:y", requires=("no_such_module",),
        install_hint="pip install 'far[away]'",
    )  # fmt: skip
    with pytest.raises(AdzError) as caught:
        load_plugins().load_implementation(component)
    assert str(caught.value) == "'far' needs no_such_module (pip install 'far[away]')"


def test_an_option_with_a_second_name_is_refused(home, tmp_path, monkeypatch):
    (tmp_path / "aliased_options.py").write_text(
        "from pydantic import AliasChoices, BaseModel, Field, create_model\n"
        "class Many(BaseModel):\n"
        "    size: int = Field(1, validation_alias=AliasChoices('size', 'width'))\n"
        "class Two(BaseModel):\n"
        "    lambda_: float = Field(0.4, alias='lambda')\n"
        "One = create_model('One', **{'lambda': (float, 0.4)})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    metric = specs.Metric(name="far", summary="", impl="x:y", config="aliased_options:Two")
    with pytest.raises(
        AdzError, match=r"option lambda_ of 'far' has an alias, lambda \(give it one"
    ):
        load_plugins().load_options(metric)
    with pytest.raises(AdzError, match=r"option size of 'far' has an alias, AliasChoices"):
        load_plugins().load_options(replace(metric, config="aliased_options:Many"))
    model = load_plugins().load_options(replace(metric, config="aliased_options:One"))
    assert model().model_dump() == {"lambda": 0.4}


def test_implementation_that_is_not_there_names_the_target(home):
    component = specs.Metric(name="far", summary="", impl="adapterhub.home:nothing")
    with pytest.raises(AdzError, match=r"'far' cannot be loaded from adapterhub\.home:nothing"):
        load_plugins().load_implementation(component)


def test_hook_without_its_marker_is_an_error():
    class Module:
        @staticmethod
        def adapterhub_metrics():
            return []

    with pytest.raises(TypeError, match="adapterhub_metrics lacks @hookimpl"):
        check_hooks(Module)


def test_wrong_descriptor_is_an_error(tmp_path, monkeypatch):
    lines = load_plugin_source(
        tmp_path, monkeypatch, "wrong_descriptor",
        "@hookimpl\ndef adapterhub_metrics():\n"
        "    yield specs.Method(name='a', summary='', impl='a:b')\n",
    )  # fmt: skip
    assert "adapterhub_metrics returns specs.Metric, this is Method" in lines[0]


def test_name_given_twice_is_an_error(tmp_path, monkeypatch):
    lines = load_plugin_source(
        tmp_path, monkeypatch, "name_twice",
        "@hookimpl\ndef adapterhub_metrics():\n"
        "    yield specs.Metric(name='a', summary='', impl='a:b')\n"
        "    yield specs.Metric(name='a', summary='', impl='a:c')\n",
    )  # fmt: skip
    assert "adapterhub_metrics returns the metric 'a' twice" in lines[0]


def test_wrong_argument_of_an_event_is_an_error(tmp_path, monkeypatch):
    lines = load_plugin_source(
        tmp_path, monkeypatch, "wrong_argument",
        "@hookimpl\ndef adapterhub_before_train(runn):\n    pass\n",
    )  # fmt: skip
    assert "runn" in lines[0]


def test_exit_in_an_import_is_the_plugins_own_problem(tmp_path, monkeypatch):
    lines = load_plugin_source(tmp_path, monkeypatch, "exits", "raise SystemExit(3)\n")
    assert "SystemExit: 3" in lines[0]


def load_plugin_source(folder, monkeypatch, name, source):
    """Load a plugin with this source; return the lines it cost."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[adapterhub.plugins]\n{name} = {name}\n")
    (folder / f"{name}.py").write_text("from adapterhub import hookimpl, specs\n\n" + source)
    monkeypatch.syspath_prepend(folder)
    lines = []
    assert Plugins(lines.append).records[-1].status == "failed"
    assert len(lines) == 1
    return lines
