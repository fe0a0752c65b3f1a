"""Wrong input at the command line: one line that names the adapter and the module, and nothing
left behind, neither a version nor a directory nor a staged folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapterhub.errors import EXIT_FAILED, EXIT_USAGE, EXIT_VERIFICATION
from adapterhub.plugins import open_registry

from .conftest import SHAPES, UP, K, Lora, Q
from .small import own_rules

WEIGHTS_FILE = "adapter_model.safetensors"


@pytest.fixture
def refused(adz: Any, home: Path, tmp_path: Path) -> Callable[..., str]:
    """Run `adz merge` into a directory, and see that it fails as it should; its one line."""
    open_registry()

    def run(*arguments: object, code: int) -> str:
        out = tmp_path / "out"
        before = sorted(tmp_path.rglob("*"))
        texts = [str(getattr(argument, "path", argument)) for argument in arguments]
        done = adz("merge", *texts, "--out", out)
        assert done.code == code, done.err
        assert not done.out
        lines = done.err.splitlines()
        progress = {"base not checked: a directory does not say it, --base NAME does",
                    "merging 3 modules"}  # fmt: skip
        assert set(lines[:-1]) <= progress
        assert sorted(tmp_path.rglob("*")) == before
        return lines[-1]

    return run


@pytest.fixture
def two(make_lora: Any) -> tuple[Lora, Lora]:
    return make_lora("a", seed=1), make_lora("b", seed=2)


def spoil(lora: Lora, key: str, value: float) -> None:
    tensors = load_file(lora.path / WEIGHTS_FILE)
    tensors[f"base_model.model.{key}.weight"][1, 2] = value
    save_file(tensors, lora.path / WEIGHTS_FILE)


# regmean asks for input moments before it reads a factor.
@pytest.mark.parametrize("rule", sorted(own_rules().keys() - {"regmean"}))
@pytest.mark.parametrize(("factor", "value"), [("A", float("nan")), ("B", float("inf"))])
def test_nan_names_the_adapter_and_the_module(
    rule: str, factor: str, value: float, two: tuple[Lora, Lora], refused: Any
) -> None:
    spoil(two[1], f"{UP}.lora_{factor}", value)
    line = refused("--rule", rule, *two, code=EXIT_FAILED)
    assert f"{two[1].path}: {UP} holds NaN or infinity" in line


def test_shapes_that_differ(make_lora: Any, refused: Any) -> None:
    a, b = make_lora("a"), make_lora("b", shapes={**SHAPES, K: (10, 24)})
    line = refused(a, b, code=EXIT_FAILED)
    assert f"{K} is 10 x 24 in {b.path} and 12 x 24 in {a.path}" in line


def test_no_module_in_common(make_lora: Any, refused: Any) -> None:
    a, b = make_lora("a", shapes={Q: SHAPES[Q]}), make_lora("b", shapes={UP: SHAPES[UP]})
    line = refused(a, b, code=EXIT_FAILED)
    assert f"{a.path} shares no module with the others (its first is {Q})" in line


@pytest.mark.parametrize(
    ("spelling", "name"), [("{path}", ""), ("{path}/", "/"), ("{path}/../a", "/../a")]
)
def test_one_directory_twice(
    spelling: str, name: str, two: tuple[Lora, Lora], refused: Any
) -> None:
    again = spelling.format(path=two[0].path)
    assert f"{two[0].path}{name} is given twice" in refused(two[0], two[1], again, code=EXIT_USAGE)


@pytest.mark.parametrize("again", ["a", "a@1", "a@latest"])
def test_one_version_twice(again: str, adz: Any, commit_adapter: Any, refused: Any) -> None:
    # A view of the version is made on demand, whoever asks for it.
    open_registry().path(commit_adapter("a"))
    assert "a@1 is given twice (give it once, with its weight)" in refused(
        "a", again, code=EXIT_USAGE
    )
    # Another version of the same name is another adapter.
    commit_adapter("a", seed=1)
    assert adz("merge", "a@1", "a@2", "--name", "both").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "1"], "1 weight for 2 adapters (give one weight for each of "),
        (["--weights", "1,2,3"], "3 weights for 2 adapters"),
        (["--weights", "0,0"], "all weights are 0"),
        (["--weights", "1,nan"], "weights must be finite"),
        (["--weights", "1,inf"], "weights must be finite"),
        (["--weights", "half,half"], "weights are numbers with commas between"),
        (["--rule", "tsw"], "unknown merge rule 'tsw' (did you mean tsv or ties?)"),
        (["--rule", "dare_tie"], "unknown merge rule 'dare_tie' (did you mean dare_ties"),
        (["--iso_c"], "--iso-c"),
        (["--space", "knot"], "unknown merge space 'knot' (did you mean knots?)"),
        (["--iso-c", "--space", "dense"], "'iso-c' does not run in the space 'dense'"),
        (["--rank", "9"], f"rank 9 is above the possible 8 (of {K} in "),
        (
            ["--ties", "--space", "dense", "--rank", "25"],
            f"rank 25 is above the possible 24 (of {Q} in ",
        ),
        (["--rank", "0"], "the rank is"),
        (["--rank", "-3"], "the rank is"),
        (["--tsv", "--density", "0"], "density: input should be greater than 0"),
        (["--della", "--density", "1.01"], "density: input should be less than or equal to 1"),
        (["--ties", "--density", "nan"], "density: input should be"),
        (["--slerp", "--density", "0.5"], "the rule 'slerp' has no density"),
        (["--breadcrumbs", "-o", "options.gamma=1"], "options.gamma: input should be less than 1"),
        (["--della", "-o", "options.epsilon=-0.1"], "options.epsilon: input should be greater"),
        (["--della", "-o", "options.epsilom=0.1"], "unknown option options.epsilom (did you mean "
                                                   "options.epsilon?)"),
        (["--iso-cts", "-o", "options.common_space_fraction=2"], "options.common_space_fraction"),
        (["--tsv", "-o", "options.gamma=0.1"], "the rule 'tsv' has no options of its own"),
        (["--linear", "--pico"], "several rules are given: linear, pico"),
    ],
)  # fmt: skip
def test_wrong_options(
    arguments: list[str], message: str, two: tuple[Lora, Lora], refused: Any
) -> None:
    assert message in refused(*two, *arguments, code=EXIT_USAGE)


@pytest.mark.parametrize(
    "rule", sorted(n for n, r in own_rules().items() if not r.negative_weights)
)
def test_a_negative_weight_where_it_means_nothing(
    rule: str, two: tuple[Lora, Lora], refused: Any
) -> None:
    line = refused("--rule", rule, *two, "--weights", "1,-0.5", code=EXIT_USAGE)
    assert f"the weight -0.5 of {two[1].path}: {rule!r} has no negative weights" in line


def test_slerp_of_three(make_lora: Any, two: tuple[Lora, Lora], refused: Any) -> None:
    line = refused("--slerp", *two, make_lora("c"), code=EXIT_USAGE)
    assert "the rule 'slerp' takes two adapters, 3 are given" in line


def test_one_adapter_only(two: tuple[Lora, Lora], refused: Any) -> None:
    assert "1 adapter given (name at least two)" in refused(two[0], code=EXIT_USAGE)


def test_different_bases(
    adz: Any, commit_adapter: Any, refused: Any, tiny_base_dir: Path, tmp_path: Path
) -> None:
    import shutil

    from adapterhub.manifest import BaseLink

    version = commit_adapter("one")
    folder = shutil.copytree(tiny_base_dir, tmp_path / "other-base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    assert adz("base", "add", "other", folder).code == 0
    registry = open_registry()
    link = BaseLink(status="recorded", name="other", digests=registry.base("other").digests)
    registry.commit(
        version.manifest.model_copy(update={"name": "two", "base": link, "files": {}}),
        registry.path(version),
    )
    registry.path(registry.resolve("two"))
    line = refused("one", "two", code=EXIT_VERIFICATION)
    assert "one@1 and two@1 have different bases: tiny and other differ in arch" in line


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "adapter_config.json").unlink(), "is not a PEFT directory"),
        (lambda path: (path / "adapter_config.json").write_text("{"), "adapter_config.json"),
        (lambda path: (path / WEIGHTS_FILE).unlink(), "has no adapter_model.safetensors"),
        (lambda path: (path / WEIGHTS_FILE).write_bytes(b""), "adapter_model.safetensors"),
        (
            lambda path: (path / WEIGHTS_FILE).write_bytes(
                (path / WEIGHTS_FILE).read_bytes()[:-64]
            ),
            "adapter_model.safetensors cannot be read",
        ),
    ],
)
def test_damaged_files(
    damage: Callable[[Path], object], message: str, two: tuple[Lora, Lora], refused: Any
) -> None:
    damage(two[1].path)
    line = refused(*two, code=EXIT_FAILED)
    assert str(two[1].path) in line
    assert message in line


def test_a_rule_that_overflows_names_itself_and_the_module(make_lora: Any, refused: Any) -> None:
    loras = [make_lora("a", seed=1), make_lora("b", seed=2)]
    for lora in loras:
        tensors = load_file(lora.path / WEIGHTS_FILE)
        for name, tensor in tensors.items():
            if K in name:
                tensor.mul_(1e25)
        save_file(tensors, lora.path / WEIGHTS_FILE)
    line = refused(*loras, "--rank", "2", code=EXIT_FAILED)
    assert f"the rule 'linear' made NaN or infinity of {K}" in line
    assert torch.isfinite(load_file(loras[0].path / WEIGHTS_FILE)[
        f"base_model.model.{K}.lora_A.weight"]).all()  # fmt: skip


@pytest.mark.parametrize("there", ["file", "folder"])
def test_what_is_there_is_left_alone(there: str, adz: Any, two: Any, tmp_path: Path) -> None:
    out = tmp_path / "taken"
    if there == "folder":
        out.mkdir()
        out = out / "mine"
        out.mkdir()
    (out if there == "file" else out / "note").write_text("keep me")
    done = adz("merge", two[0].path, two[1].path, "--out", out)
    assert done.code == EXIT_FAILED
    assert f"{out} exists already (give another --out)" in done.err
    assert (out if there == "file" else out / "note").read_text() == "keep me"
