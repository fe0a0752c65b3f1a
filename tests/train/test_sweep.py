"""Sweeps: one pass gives what separate runs give, the winner is tagged, refusals stay alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from adapterhub.errors import AdzError
from adapterhub.protocols import Registry
from adapterhub.train.loss import tree_losses
from adapterhub.train.passes import comparable, why_apart
from adapterhub.train.pipeline import train
from adapterhub.train.sweep import combinations, sweep
from adapterhub_objectives import sft

PlanFor = Callable[..., Any]


def weights(registry: Registry, version: Any) -> dict[str, torch.Tensor]:
    loaded: dict[str, torch.Tensor] = load_file(
        registry.path(version) / "adapter_model.safetensors"
    )
    return loaded


@pytest.mark.parametrize(("enough", "parts"), [(10_000, {3}), (200, {2, 1}), (1, {1})])
def test_one_pass_ends_where_separate_runs_end(
    enough: int,
    parts: set[int],
    plan_for: PlanFor,
    registry: Registry,
    progress: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together: set[int] = set()

    def watched(model: Any, trees: Sequence[Any]) -> Any:
        together.add(len(trees))
        return tree_losses(model, trees)

    monkeypatch.setattr(sft, "_ENOUGH_TOKENS", enough)
    monkeypatch.setattr(sft, "tree_losses", watched)
    plans = [
        (f"r={r}", plan_for(method={"name": "lora", "r": r}, training={"lr": lr, "max_steps": 4}))
        for r, lr in ((2, 1e-2), (8, 3e-3), (4, 1e-3))
    ]
    assert why_apart([plan for _, plan in plans]) == ""
    alone = [train(plan, registry, progress) for _, plan in plans]
    done = sweep(plans, registry, progress)
    assert together == parts
    assert [part.runs for part in done.passes] == [(0, 1, 2)]
    assert [member.error for member in done.members] == [None] * 3
    for member, single in zip(done.members, alone, strict=True):
        assert member.version is not None
        mine, theirs = weights(registry, member.version), weights(registry, single)
        for name, tensor in theirs.items():
            torch.testing.assert_close(mine[name], tensor, rtol=1e-2, atol=2e-4)
        metrics, expected = member.version.manifest.metrics, single.manifest.metrics
        assert metrics["holdout_loss"] == pytest.approx(expected["holdout_loss"], rel=1e-4)
        assert metrics["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4)
        assert member.version.manifest.recipe == single.manifest.recipe
    (winner,) = done.winners
    assert winner.version is not None
    best = min(alone, key=lambda version: version.manifest.metrics["holdout_loss"])
    assert winner.version.manifest.recipe == best.manifest.recipe
    assert registry.resolve("double@best").reference == winner.version.reference


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"method": {"name": "dora"}}, "plain LoRA"),
        ({"method": {"name": "lora", "dropout": 0.1}}, "dropout"),
        ({"training": {"batch_size": 2}}, "training.batch_size differs"),
        ({"training": {"seed": 3}}, "training.seed differs"),
        ({"data": {"holdout": 0.1}}, "options of data"),
        ({"training": {"report_to": ["tensorboard"]}}, "training.report_to differs"),
    ],
)
def test_what_cannot_share_a_pass_says_why(
    change: dict[str, Any], reason: str, plan_for: PlanFor
) -> None:
    assert reason in why_apart([plan_for(), plan_for(**change)])


def test_runs_that_differ_too_much_are_trained_in_turn(
    plan_for: PlanFor, registry: Registry, progress: Any
) -> None:
    plans = [("a", plan_for()), ("b", plan_for(training={"max_steps": 2}))]
    done = sweep(plans, registry, progress)
    assert [part.runs for part in done.passes] == [(0,), (1,)]
    assert any("max_steps differs" in note for note in progress.notes)
    assert [m.version.number for m in done.members if m.version] == [1, 2]


def test_a_run_that_is_refused_leaves_the_others(
    plan_for: PlanFor, registry: Registry, progress: Any
) -> None:
    plans = [
        (f"lr={lr}", plan_for(training={"lr": lr, "clip": 0, "max_steps": 6}))
        for lr in (1e-2, 1e30)
    ]
    done = sweep(plans, registry, progress)
    assert [part.runs for part in done.passes] == [(0, 1)]
    assert done.members[0].version is not None
    assert "not finite" in str(done.members[1].error)
    assert done.winners == done.members[:1]
    with pytest.raises(AdzError, match="not finite"):
        sweep(plans[1:], registry, progress)


def test_axes_make_every_combination() -> None:
    found = combinations({"data": {"train": "x"}}, ["r=8,16", "lr=1e-4,3e-4"])
    assert [label for label, _ in found] == [
        "r=8 lr=1e-4", "r=8 lr=3e-4", "r=16 lr=1e-4", "r=16 lr=3e-4",
    ]  # fmt: skip
    assert found[3][1] == {
        "data": {"train": "x"}, "method": {"r": 16}, "training": {"lr": 3e-4},
    }  # fmt: skip
    with pytest.raises(AdzError, match="not key=value"):
        combinations({}, ["r"])


def test_the_command_prints_a_table_and_the_winner(
    adz: Any, registry: Registry, data_file: Path
) -> None:
    result = adz(
        "train", "--data", data_file, "-o", "training.max_steps=3", "-o", "data.holdout=0.2",
        "--sweep", "r=2,4", "lr=1e-2,1e-3",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert result.out.count("double@") >= 4
    assert "double@best" in result.out
    assert "r=4 lr=1e-3" in result.out
    (plot,) = [line for line in result.out.splitlines() if line.endswith(".png")]
    assert Path(plot.split()[-1]).read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def recipe_of(tmp_path: Path) -> Callable[..., Path]:
    """A recipe file over a data set of its own: `recipe_of("a", word="up", method={...})`."""

    def write(name: str, *, word: str, **changes: Any) -> Path:
        data = tmp_path / f"{word}.jsonl"
        rows = [{"prompt": f"{n}:", "completion": f" {word}{n}"} for n in range(30)]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        values = {"data": {"train": data.name, "holdout": 0.2}, **changes}
        values["training"] = {"max_steps": 3, "batch_size": 4, "lr": 1e-2} | values.get(
            "training", {}
        )
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def test_several_recipes_share_a_pass_where_they_can_and_are_compared_where_they_may(
    adz: Any, registry: Registry, recipe_of: Callable[..., Path]
) -> None:
    recipes = [
        recipe_of("a", word="up", method={"name": "lora", "r": 2}),
        recipe_of("b", word="up", method={"name": "lora", "r": 8}),
        recipe_of("c", word="down"),
        recipe_of("d", word="up", method={"name": "dora"}),
    ]
    arguments = [part for recipe in recipes for part in ("-c", recipe)]
    done = adz("train", *arguments, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    a, b, c, d = map(str, recipes)
    assert told["passes"] == [
        {"runs": [a, b], "apart": None},
        {"runs": [c], "apart": "they learn from several data sets"},
        {"runs": [d], "apart": "only plain LoRA is computed side by side"},
    ]
    assert f"{c} apart: they learn from several data sets" in done.err
    found = {member["label"]: member for member in told["members"]}
    assert [found[path]["reference"] for path in (a, b, c, d)] == ["up@1", "up@2", "down@1", "up@3"]
    losses = {path: found[path]["metrics"]["holdout_loss"] for path in (a, b, d)}
    best = found[min(losses, key=losses.__getitem__)]["reference"]
    assert told["winners"] == [best]
    assert registry.resolve("up@best").reference == best
    with pytest.raises(AdzError, match="best"):
        registry.resolve("down@best")


def test_without_a_common_measure_none_is_the_best(
    adz: Any, registry: Registry, recipe_of: Callable[..., Path]
) -> None:
    first = recipe_of("a", word="up")
    done = adz("train", "-c", first, "-c", recipe_of("b", word="down"))
    assert done.code == 0, done.err
    assert "trained one after the other: they learn from several data sets" in done.out
    assert "none is the best: they are not scored alike" in done.out
    assert "@best" not in done.out


def test_what_is_scored_otherwise_is_not_compared(plan_for: PlanFor) -> None:
    def groups(*changes: dict[str, Any]) -> list[tuple[int, ...]]:
        return comparable([plan_for(**change) for change in changes])

    shorter = {"training": {"max_steps": 2}}
    assert groups({}, {"method": "dora"}, shorter) == [(0, 1, 2)]
    assert groups({}, {"training": {"max_length": 64}}) == []
    assert groups({}, {"data": {"holdout": 0.1}}, {}) == [(0, 2)]
    nothing_held = {"data": {"holdout": 0.0}}
    assert groups(nothing_held, nothing_held | {"method": "dora"}) == [(0, 1)]
    # The mean training loss of a shorter run is another thing.
    assert groups(nothing_held, nothing_held | shorter) == []
