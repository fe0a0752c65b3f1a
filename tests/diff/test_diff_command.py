"""`adz diff`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Adz = Callable[..., Any]


@pytest.fixture
def two(commit_adapter: Any) -> Any:
    """sql@1 and sql@2, made with other weights."""
    from adapterhub.plugins import open_registry

    commit_adapter("sql", seed=1)
    commit_adapter("sql", seed=2)
    return open_registry()


def test_agrees_with_peft(two: Any, adz: Adz, tiny_base: Any) -> None:
    from peft import PeftModel

    from adapterhub.models import load_base

    value = json.loads(adz("diff", "sql@1", "sql@2", "--json").out)
    assert value["adapters"] == ["sql@1", "sql@2"]
    deltas = []
    for reference in ("sql@1", "sql@2"):
        path = two.path(two.resolve(reference))
        model = PeftModel.from_pretrained(load_base(tiny_base), path)
        deltas.append(
            {
                name.removeprefix("base_model.model."): module.get_delta_weight("default").double()
                for name, module in model.named_modules()
                if hasattr(module, "get_delta_weight")
            }
        )
    assert set(value["modules"]) == set(deltas[0])
    for name, found in value["modules"].items():
        first, second = deltas[0][name].detach(), deltas[1][name].detach()
        # PEFT multiplies in float32.
        assert found["distance"] == pytest.approx(float((first - second).norm()), rel=1e-5)
        assert found["norms"] == pytest.approx([float(first.norm()), float(second.norm())])


def test_text(two: Any, adz: Adz) -> None:
    lines = adz("diff", "sql@1", "sql@2").out.splitlines()
    assert lines[0].startswith("14 of 14 modules differ: norms ")
    assert lines[-1] == "  and 4 more: --all"
    whole = adz("diff", "sql@1", "sql@2", "--all").out
    assert "--all" not in whole
    assert sum(line.startswith("  model.layers") for line in whole.splitlines()) == 14


def test_nothing_differs(two: Any, adz: Adz) -> None:
    assert adz("diff", "sql@1", "sql@1").out == "every tensor computes the same\n"


def test_facts_and_scores(two: Any, adz: Adz, commit_adapter: Any) -> None:
    commit_adapter("wide", "rslora")
    body = {
        "metric": "exact_match", "score": 0.25, "n": 4, "shots": 0,
        "data": {"file": "test.jsonl", "sha256": "sha256:ab", "rows": 4},
    }  # fmt: skip
    two.attest(two.resolve("sql@1"), "evaluation", {**body, "score": 0.5})
    two.attest(two.resolve("sql@1"), "evaluation", body)
    two.attest(two.resolve("wide"), "evaluation", {**body, "score": 0.75})
    other = {**body, "data": {**body["data"], "sha256": "sha256:cd"}}
    two.attest(two.resolve("wide"), "evaluation", other)
    value = json.loads(adz("diff", "sql@1", "wide", "--json").out)
    assert value["configuration"]["use_rslora"] == [None, True]
    assert value["lineage"] == {"method": ["lora", "rslora"]}
    # The same file with other content is other data.
    assert [s["scores"] for s in value["scores"]] == [[0.25, 0.75], [None, 0.25]]
    assert [s["difference"] for s in value["scores"]] == [0.5, None]
    assert "test.jsonl  exact_match      0  0.25   0.75    +0.5" in adz("diff", "sql@1", "wide").out


def test_directories(two: Any, adz: Adz, tmp_path: Path) -> None:
    adz("export", "sql@1", tmp_path / "copy")
    result = adz("diff", tmp_path / "copy", "sql@1", "--json")
    value = json.loads(result.out)
    assert value["total"]["distance"] == 0
    assert value["digests"][0] is None
    assert value["digests"][1] == two.resolve("sql@1").digest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sql@1", "sqll"), "unknown adapter 'sqll' (did you mean sql?)"),
        (("sql@1", "./nowhere"), "there is no directory nowhere"),
        (("sql@1",), "Missing argument 'SECOND'"),
    ],
)
def test_bad_input(two: Any, adz: Adz, arguments: tuple[str, ...], message: str) -> None:
    result = adz("diff", *arguments)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1


def test_without_torch(two: Any, adz_process: Adz, tmp_path: Path) -> None:
    """The plain install compares too."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ModuleNotFoundError('torch')")
    result = adz_process("diff", "sql@1", "sql@2", env={"PYTHONPATH": str(tmp_path)})
    assert result.code == 0, result.err
    assert "14 of 14 modules differ" in result.out
