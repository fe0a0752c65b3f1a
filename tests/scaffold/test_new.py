"""`adz plugins new`: what it writes, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from adapterhub.errors import EXIT_USAGE
from adapterhub.scaffold import KINDS

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "adz-plugin-template"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_loaded_as_rendered(adz, with_plugin, tmp_path, kind):
    made = adz("plugins", "new", "adz-my-thing", "--kind", kind, "--out", tmp_path / "new")
    assert made.code == 0, made.err
    for file in (tmp_path / "new").rglob("*.py"):
        compile(file.read_text(), str(file), "exec")
    assert "{{" not in "".join(f.read_text() for f in (tmp_path / "new").rglob("*") if f.is_file())
    with_plugin(tmp_path / "new")
    shown = adz("plugins", "--json")
    (record,) = [r for r in json.loads(shown.out) if r["distribution"] == "adz-my-thing"]
    assert (record["status"], record["components"]) == ("loaded", {KINDS[kind].word: ["my-thing"]})
    assert shown.err == ""


def test_the_example_is_rendered_byte_for_byte(adz, tmp_path):
    sys.path.insert(0, str(ROOT / "scripts"))
    from build_docs import EXAMPLE_PARTS

    flags = [word for part in EXAMPLE_PARTS for word in ("--kind", part)]
    target = tmp_path / "adz-plugin-template"
    assert adz("plugins", "new", "adz-plugin-template", *flags, "--out", target).code == 0

    def contents(folder):
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    assert contents(target) == contents(EXAMPLE)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("adz-x", "--kind", "metrics"), "unknown kind 'metrics' (did you mean metric?)"),
        (("Adz X", "--kind", "metric"), "'Adz X' cannot be the name of a distribution"),
        (("adz-x", "--kind", "metric=../x"), "'../x' cannot be the name of a component"),
        (("adz-x", "--kind", "metric=class"), "'class' cannot be the name of a component"),
        (("adz-x", "--kind", "metric=plugin"), "a part cannot be called plugin"),
        (("adz-x", "--kind", "metric", "--kind", "command"), "two parts would be the module x"),
        (("adz-x",), "Missing option '--kind'"),
    ],
)
def test_what_it_refuses_leaves_nothing(adz, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    done = adz("plugins", "new", *arguments)
    assert (done.code, done.out) == (EXIT_USAGE, "")
    assert said in done.err
    assert done.err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


def test_a_folder_that_exists_stays_as_it_is(adz, tmp_path):
    (tmp_path / "kept").write_text("mine")
    done = adz("plugins", "new", "adz-x", "--kind", "metric", "--out", tmp_path / "kept")
    assert done.code == EXIT_USAGE
    assert "exists" in done.err
    assert (tmp_path / "kept").read_text() == "mine"
    missing = adz("plugins", "new", "adz-x", "--kind", "metric", "--out", tmp_path / "no" / "x")
    assert missing.code == EXIT_USAGE
    assert "there is no folder" in missing.err
