"""adz plugins"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

DISTS = Path(__file__).parent.parent / "fixtures" / "dists"


def test_json_says_what_came_from_where(adz_process):
    path = os.pathsep.join(str(DISTS / name) for name in ("healthy", "import_error"))
    done = adz_process("plugins", "--json", env={"PYTHONPATH": path})
    assert done.code == 0
    records = {r["name"]: r for r in json.loads(done.out)}
    assert records["adz_healthy"].pop("seconds") > 0
    assert records["adz_healthy"] == {
        "name": "adz_healthy", "module": "adz_healthy", "distribution": "adz-healthy",
        "version": "1.0", "status": "loaded", "problem": "",
        "components": {"metric": ["length"], "command": ["hello"]}, "shared": {},
        "hooks": [
            "adapterhub_after_train", "adapterhub_before_commit", "adapterhub_before_train",
            "adapterhub_commands",
            "adapterhub_metrics",
        ],
    }  # fmt: skip
    assert records["adz_import_error"]["status"] == "failed"
    assert "a_module_that_nobody_has" in records["adz_import_error"]["problem"]
    assert done.err.count("\n") == 1
    assert {r["distribution"] for r in records.values()} >= {"adapterhub", "adz-healthy"}


def test_table_has_a_line_for_each(adz, adz_process):
    records = json.loads(adz("plugins", "--json").out)
    lines = adz("plugins").out.splitlines()
    assert len(lines) == len(records) + 1
    registry = next(line for line in lines if line.startswith("registry "))
    assert "registry: local" in registry


@pytest.fixture
def with_dists(adz_process, tmp_path):
    """Run `adz` where these fixture distributions can be imported, with variables of its own."""

    def run(names, *arguments, **env):
        path = os.pathsep.join(str(DISTS / name) for name in names)
        cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        return adz_process(*arguments, env={"PYTHONPATH": path, **cache, **env})

    return run


def status_of(done, distribution):
    (record,) = [r for r in json.loads(done.out) if r["distribution"] == distribution]
    return record["status"], record["problem"]


def test_disabled_plugin_is_not_imported_until_it_is_enabled(with_dists):
    said = with_dists(["healthy"], "plugins", "disable", "adz_healthy")
    assert (said.code, said.out) == (0, "adz-healthy is disabled\n")
    shown = with_dists(["healthy"], "plugins", "--json")
    assert status_of(shown, "adz-healthy") == ("disabled", "adz plugins enable loads it again")
    hidden = with_dists(["healthy"], "hello", "you")
    assert hidden.code == 2
    assert "unknown command 'hello'" in hidden.err
    assert with_dists(["healthy"], "plugins", "enable", "adz-healthy").code == 0
    assert with_dists(["healthy"], "hello", "you").out == "hello you\n"


def test_disabled_plugin_that_fails_is_silent(with_dists):
    assert "ModuleNotFoundError" in with_dists(["import_error"], "plugins").err
    with_dists(["import_error"], "plugins", "disable", "adz-import-error")
    assert with_dists(["import_error"], "plugins").err == ""


@pytest.mark.parametrize(
    ("action", "name", "said"),
    [
        ("disable", "adapterhub", "adapterhub's own plugins cannot be disabled"),
        ("disable", "adz-healty", "unknown distribution with plugins 'adz-healty' (did you mean"),
        ("enable", "adz-healthy", "unknown disabled distribution 'adz-healthy'"),
    ],
)
def test_what_cannot_be_disabled_or_enabled(with_dists, action, name, said):
    done = with_dists(["healthy"], "plugins", action, name)
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("chosen", "loaded"),
    [
        ("", []),
        ("adz-healthy", ["adz-healthy"]),
        ("adz_healthy, adz-second-stranger", ["adz-healthy", "adz-second-stranger"]),
    ],
)  # fmt: skip
def test_variable_names_the_only_ones_that_are_loaded(with_dists, chosen, loaded):
    shown = with_dists(["healthy", "second_stranger"], "plugins", "--json", ADZ_PLUGINS=chosen)
    found = [r["distribution"] for r in json.loads(shown.out) if r["status"] == "loaded"]
    assert [name for name in found if name != "adapterhub"] == loaded
    assert "adapterhub" in found


def test_variable_with_a_name_that_nothing_has_is_told(with_dists):
    done = with_dists(["healthy"], "plugins", ADZ_PLUGINS="adz-healthy,adz-helthy")
    assert done.code == 0
    assert done.err == "adz: ADZ_PLUGINS names adz-helthy, which is not installed\n"


def test_strict_makes_a_failing_plugin_an_error(with_dists):
    strict = {"ADZ_STRICT_PLUGINS": "1"}
    done = with_dists(["import_error"], "plugins", **strict)
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "a_module_that_nobody_has" in done.err
    assert with_dists(["healthy"], "plugins", **strict).code == 0


def test_shared_name_is_an_error_only_when_it_is_used(with_dists, tmp_path):
    shown = with_dists(["healthy", "second_stranger"], "plugins")
    assert (shown.code, shown.err) == (0, "")
    assert "metric: adz-healthy:length" in shown.out
    data = tmp_path / "rows.jsonl"
    data.write_text('{"prompt": "a", "completion": "b"}\n')
    done = with_dists(
        ["healthy", "second_stranger"], "eval", "x", "--data", data, "--metric", "length"
    )
    assert done.code == 2
    assert "use adz-healthy:length or adz-second-stranger:length" in done.err


def test_command_may_be_called_with_its_distribution(with_dists):
    assert with_dists(["healthy"], "adz-healthy:hello", "you").out == "hello you\n"
    assert "unknown command" in with_dists(["healthy"], "adz-other:hello", "you").err


def test_show_says_what_a_component_takes(adz):
    text = adz("plugins", "show", "della").out
    assert text.startswith("merge rule della: ")
    assert "  spaces: core, knots, dense\n" in text
    assert "  parameters: density, seed\n" in text
    assert "  -o options.epsilon=0.1  (float)\n      How far a probability" in text
    dpo = adz("plugins", "show", "adapterhub:dpo").out
    assert "  -o objective.loss=sigmoid  (sigmoid | hinge | ipo)" in dpo


def test_what_show_prints_is_what_a_recipe_takes(adz):
    """Each option by its shown name, with its shown default."""
    from adapterhub.config import parse_overrides, validate
    from adapterhub.plugins import load_plugins
    from adapterhub.specs import Method

    (shown,) = json.loads(adz("plugins", "show", "loha", "--json").out)
    assert shown["facts"]["mergeable"] is True
    model = load_plugins().load_options(load_plugins().components(Method)["loha"])
    given = [f"{o['name']}={json.dumps(o['default'])}" for o in shown["options"]]
    assert validate(model, parse_overrides(given)["method"], "method") == model()


def test_show_finds_every_kind_of_that_name_and_near_ones(adz):
    text = adz("plugins", "show", "text").out
    assert text.startswith("format text: ")
    done = adz("plugins", "show", "lor")
    assert (done.code, done.out) == (2, "")
    assert "unknown component 'lor' (did you mean lora or " in done.err
    assert adz("plugins", "show", "elsewhere:lora").code == 2


def test_a_traceback_of_a_plugin_ends_with_whose_it_is(with_dists):
    assert with_dists(["healthy"], "hello", "you").out == "hello you\n"
    done = with_dists(["healthy"], "hello", "")
    assert done.code == 1
    *_, error, whose = done.err.splitlines()
    assert error == "AssertionError: a bug in the plugin"
    assert whose == "adz: this went wrong in the plugin adz-healthy 1.0: tell its author"


def test_our_own_traceback_blames_nobody():
    from adapterhub.plugin_fault import blamed_plugin

    with pytest.raises(ZeroDivisionError) as caught:
        1 / 0  # noqa: B018
    assert blamed_plugin(caught.value) is None
