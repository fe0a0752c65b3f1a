"""`adz merge`: every rule is a flag, options from four places, one line for a mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from adapterhub.cli.merge import command
from adapterhub.plugin_checks import MERGE_OPTIONS
from adapterhub.plugins import open_registry


@pytest.fixture
def two(commit_adapter: Any) -> None:
    commit_adapter("a", seed=1)
    commit_adapter("b", seed=2)


def options() -> set[str]:
    own = [p for p in command.params if isinstance(p, click.Option)]
    return {flag.removeprefix("--") for p in own for flag in p.opts if flag.startswith("--")}


def test_the_reserved_words_are_the_options() -> None:
    """A rule is a flag too, so it may not be called like one of these."""
    assert options() | {"help"} == MERGE_OPTIONS


def test_every_rule_is_a_flag(adz: Any) -> None:
    shown = adz("merge", "--help").out
    for rule in ("linear", "cat", "ties", "dare"):
        assert f"--{rule} " in shown


def test_help_imports_no_torch(home: Path) -> None:
    code = (
        "import sys; from adapterhub.cli import main; main(['merge', '--help']);"
        "print(sorted({'torch', 'pydantic', 'rich', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "ADZ_HOME": str(home)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.usefixtures("two")
def test_the_short_form(adz: Any) -> None:
    done = adz("merge", "--ties", "a", "b")
    assert done.code == 0, done.err
    assert "ties of a@1 * 0.5 + b@1 * 0.5 (space core, density 0.2)" in done.out
    assert "relative error" in done.out
    version = open_registry().resolve("a-b-ties")
    assert done.out.splitlines()[-1].split() == ["a-b-ties@1", version.digest]


@pytest.mark.usefixtures("two")
def test_json(adz: Any) -> None:
    done = adz("merge", "--rule", "dare", "a", "b", "--name", "both", "--weights", "0.7,0.3",
               "--density", "0.9", "--seed", "4", "--json")  # fmt: skip
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["rule"] == "dare"
    assert result["weights"] == [0.7, 0.3]
    assert result["options"] == {"density": 0.9, "seed": 4}
    assert result["reference"] == "both@1"
    assert result["payload"] == open_registry().resolve("both").manifest.payload
    assert len(result["largest"]) == 5


@pytest.mark.usefixtures("two")
def test_out_writes_a_directory_only(adz: Any, tmp_path: Path) -> None:
    done = adz("merge", "a", "b", "--out", tmp_path / "new" / "plain", "--rank", "max", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["directory"] == str(tmp_path / "new" / "plain")
    assert sorted(p.name for p in (tmp_path / "new" / "plain").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["plain"]
    assert open_registry().names() == ["a", "b"]


@pytest.mark.usefixtures("two")
def test_where_an_option_comes_from(adz: Any, home: Path, tmp_path: Path) -> None:
    """A flag wins over -o, that over the recipe, that over the user's defaults."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("rule: ties\nadapters: [a, b]\ndensity: 0.3\nname: fromfile\n")
    (home / "config.yaml").write_text("merge:\n  density: 0.1\n  rank: 3\n")

    def run(*arguments: str | Path) -> Any:
        done = adz("merge", *arguments, "--dry-run", "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    assert run("--ties", "a", "b")["options"] == {"density": 0.1}
    assert run("-c", recipe)["options"] == {"density": 0.3}
    assert run("-c", recipe)["rank"] == 3
    assert run("-c", recipe, "-o", "density=0.4")["options"] == {"density": 0.4}
    flagged = run("-c", recipe, "-o", "density=0.4", "--density", "0.5", "--rank", "4")
    assert flagged["options"] == {"density": 0.5}
    assert flagged["rank"] == 4
    assert run("-c", recipe, "--linear", "-o", "density=null")["rule"] == "linear"


MISTAKES = [
    (("--ties", "--linear", "a", "b"), 2, "several rules are given: linear, ties (choose one)"),
    (("--rule", "tiez", "a", "b"), 2, "unknown merge rule 'tiez' (did you mean ties?)"),
    (("a",), 2, "1 adapter given"),
    ((), 2, "0 adapters given"),
    (("a", "bb"), 2, "'bb'"),
    (("a", "../nowhere"), 1, "there is no directory ../nowhere"),
    (("a", "b", "--weights", "1"), 2, "1 weight for 2 adapters"),
    (("--ties", "a", "b", "--density", "0"), 2, "density: input should be greater than 0"),
    (("a", "b", "--name", "../x"), 2, "'../x' is not a valid name"),
    (("a", "b", "--rank", "9999"), 2, "rank 9999 is above the possible"),
    (("a", "b", "-o", "densty=1"), 2, "unknown option densty (did you mean density?)"),
    (("a", "b", "--base", "nope"), 2, "unknown base 'nope'"),
    (("a", "ia"), 1, "ia@1 is no LoRA adapter but IA3"),
    (("a", "dora"), 1, "dora@1 is DoRA"),
]


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES)
def test_a_mistake_is_one_line(
    arguments: tuple[str, ...], code: int, message: str, adz: Any, commit_adapter: Any
) -> None:
    if "ia" in arguments:
        commit_adapter("ia", "ia3")
    if "dora" in arguments:
        commit_adapter("dora", "dora")
    names = open_registry().names()
    done = adz("merge", *arguments)
    assert done.code == code, done.err
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not done.out
    assert open_registry().names() == names


@pytest.mark.usefixtures("two")
def test_a_lossy_merge_warns_with_its_cure(adz: Any) -> None:
    done = adz("merge", "a", "b", "--rank", "2")
    found = re.search(r"warning: rank 2 in core loses \d+%: --rank (\d+) loses", done.err)
    assert found is not None
    assert "warning" not in adz("merge", "a", "b", "--rank", found[1]).err
