"""The pipeline on a tiny base: every method, the same bytes twice, resuming, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from adapterhub.errors import EXIT_INTERRUPTED, EXIT_VERIFICATION, AdzError
from adapterhub.manifest import Version
from adapterhub.models import load_adapter
from adapterhub.protocols import Registry
from adapterhub.train import pipeline
from adapterhub.train.directory import last_checkpoint, run_directory
from adapterhub.train.pipeline import train
from adapterhub.train.rows import Rows, rows_of

METHODS = ("lora", "rslora", "dora", "ia3", "prefix", "prompt")

Trained = Callable[..., Version]


@pytest.mark.parametrize("method", METHODS)
def test_each_method_learns_and_leaves_the_base_alone(
    method: str, trained: Trained, registry: Registry, tiny_base_dir: Path
) -> None:
    before = (tiny_base_dir / "model.safetensors").read_bytes()
    version = trained(method={"name": method}, training={"max_steps": 8, "lr": 3e-2})
    assert (tiny_base_dir / "model.safetensors").read_bytes() == before
    manifest = version.manifest
    assert manifest.method == method
    assert manifest.metrics["holdout_loss"] < manifest.metrics["holdout_loss_base"]
    directory = registry.path(version)
    assert (
        json.loads((directory / "adapter_config.json").read_text())["base_model_name_or_path"]
        == "tiny"
    )
    stored = load_file(directory / "adapter_model.safetensors")
    assert sum(t.numel() for t in stored.values()) == manifest.adapter["parameters"]
    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir)
    loaded = load_adapter(base, version, directory)
    state = {n.replace(".default", ""): p for n, p in loaded.state_dict().items()}
    for name, tensor in stored.items():
        found = [p for n, p in state.items() if n.endswith(name) or n.endswith(name + ".weight")]
        if found:
            assert torch.equal(found[0], tensor), name
    ids = torch.tensor([[10, 11, 12]])
    plain = AutoModelForCausalLM.from_pretrained(tiny_base_dir)(input_ids=ids).logits
    assert not torch.equal(loaded(input_ids=ids).logits, plain)


def test_the_frozen_base_in_memory_stays_as_it_was(
    plan_for: Callable[..., Any], registry: Registry, progress: Any, monkeypatch: Any,
    tiny_base_dir: Path,
) -> None:  # fmt: skip
    seen: list[Any] = []
    kept = pipeline.commit_run
    monkeypatch.setattr(
        pipeline, "commit_run", lambda run, *rest: seen.append(run) or kept(run, *rest)
    )
    train(plan_for(), registry, progress)
    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir).state_dict()
    frozen = {
        n.removeprefix("base_model.model.").replace(".base_layer", ""): p
        for n, p in seen[0].model.named_parameters()
        if not p.requires_grad
    }
    assert len(frozen) == len(base)
    for name, tensor in base.items():
        assert torch.equal(frozen[name], tensor), name


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_does_not(
    trained: Trained, registry: Registry
) -> None:
    first, again = trained(), trained()
    assert (first.number, again.number) == (1, 2)
    assert first.manifest.payload == again.manifest.payload
    assert first.manifest.recipe == again.manifest.recipe
    other = trained(training={"seed": 1})
    assert other.manifest.payload != first.manifest.payload


def test_the_version_says_how_it_was_made(
    trained: Trained, registry: Registry, data_file: Path, tmp_path: Path
) -> None:
    version = trained(method={"name": "lora", "r": 4, "alpha": 8})
    manifest = version.manifest
    assert version.reference == "double@1"
    assert manifest.base.status == "recorded"
    assert manifest.base.digests == registry.base("tiny").digests
    assert manifest.adapter == {
        "rank": 4, "alpha": 8, "modules": 14, "parameters": 4 * 2 * (2 * (64 + 64) + 2 * (64 + 32)
        + 3 * (64 + 128)), "dtype": "float32",
    }  # fmt: skip
    assert manifest.prompt_format == "plain"
    assert manifest.objective == "sft"
    (data,) = manifest.data
    assert data["rows"] == 40
    assert data["file"] == "double.jsonl"
    assert manifest.environment["adapterhub"]
    assert manifest.environment["peft"]
    artifacts = tmp_path / "artifacts"
    registry.artifacts(version, artifacts)
    assert (artifacts / "loss.png").read_bytes().startswith(b"\x89PNG")
    lines = [json.loads(line) for line in (artifacts / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]


def test_a_stored_recipe_trains_the_same_adapter(
    trained: Trained, registry: Registry, progress: Any, tmp_path: Path
) -> None:
    from adapterhub.config import read_recipe, validate
    from adapterhub.train.plan import make_plan
    from adapterhub.train.recipe import TrainRecipe

    version = trained(method={"name": "lora", "r": 2})
    registry.artifacts(version, tmp_path / "kept")
    recipe = validate(TrainRecipe, read_recipe(tmp_path / "kept" / "recipe.yaml"))
    again = train(make_plan(recipe, registry), registry, progress)
    assert again.manifest.payload == version.manifest.payload


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int, error: BaseException) -> None:
    """Make the run die when it is about to take step `steps` + 1."""
    from adapterhub.train.trainer import RunTrainer

    kept = RunTrainer.training_step

    def step(self: Any, model: Any, inputs: Any, *rest: Any) -> Any:
        if self.state.global_step == steps:  # type: ignore[attr-defined]
            raise error
        return kept(self, model, inputs, *rest)

    monkeypatch.setattr(RunTrainer, "training_step", step)


@pytest.mark.parametrize("died_after", [4, 9])
def test_a_run_that_died_resumes_and_ends_as_an_unbroken_one(
    died_after: int, plan_for: Callable[..., Any], registry: Registry, progress: Any,
) -> None:  # fmt: skip
    settings = {
        "training": {"max_steps": 14, "save_every": 2, "batch_size": 4},
        "method": {"name": "lora", "dropout": 0.1},
    }
    unbroken = train(plan_for(**settings), registry, progress)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, died_after, ConnectionError("the power is gone"))
        with pytest.raises(ConnectionError):
            train(plan_for(**settings), registry, progress)
    assert len(registry.versions("double")) == 1
    resumed = train(plan_for(**settings), registry, progress, resume=True)
    assert resumed.manifest.metrics["resumed"] is True
    assert resumed.manifest.metrics["holdout_loss"] == unbroken.manifest.metrics["holdout_loss"]
    assert resumed.manifest.payload == unbroken.manifest.payload
    assert not run_directory([plan_for(**settings)]).exists()


def test_a_checkpoint_that_was_cut_off_is_not_resumed_from(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for step in (8, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (8, 10):
        (tmp_path / f"checkpoint-{step}" / "complete").touch()
    found = last_checkpoint(tmp_path)
    assert found is not None
    assert found.name == "checkpoint-10"


def test_an_interrupt_commits_nothing_and_says_how_to_go_on(
    plan_for: Callable[..., Any], registry: Registry, progress: Any, monkeypatch: Any
) -> None:
    stop_after(monkeypatch, 5, KeyboardInterrupt())
    plan = plan_for(training={"max_steps": 8, "save_every": 2})
    with pytest.raises(AdzError, match="--resume goes on from step 4") as caught:
        train(plan, registry, progress)
    assert caught.value.exit_code == EXIT_INTERRUPTED
    assert registry.versions() == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "lower training.batch_size (now 4)"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (OSError(28, "No space left on device"), "no space left"),
    ],
)
def test_no_memory_and_no_disk_are_one_sentence(
    error: Exception, message: str, plan_for: Callable[..., Any], registry: Registry,
    progress: Any, monkeypatch: Any,
) -> None:  # fmt: skip
    stop_after(monkeypatch, 1, error)
    with pytest.raises(AdzError) as caught:
        train(plan_for(), registry, progress)
    assert message in str(caught.value)
    assert registry.versions() == []


def test_a_run_without_effect_is_refused(trained: Trained, registry: Registry) -> None:
    with pytest.raises(AdzError, match="the adapter changes nothing") as caught:
        trained(training={"lr": 1e-30})
    assert caught.value.exit_code == EXIT_VERIFICATION
    assert registry.versions() == []


def test_a_run_that_ends_in_nan_is_refused(trained: Trained, registry: Registry) -> None:
    with pytest.raises(AdzError, match="not finite"):
        trained(training={"lr": 1e30, "clip": 0, "max_steps": 6})
    assert registry.versions() == []


def test_an_adapter_that_is_stored_wrong_is_refused(
    trained: Trained, registry: Registry, monkeypatch: Any
) -> None:
    from adapterhub_peft.methods import PeftMethod

    kept = PeftMethod.save

    def save(self: Any, model: Any, directory: Path) -> None:
        with torch.no_grad():
            next(p for p in model.parameters() if p.requires_grad).mul_(1.5)
        kept(self, model, directory)

    monkeypatch.setattr(PeftMethod, "save", save)
    with pytest.raises(AdzError, match="the stored adapter differs"):
        trained(training={"max_steps": 8})
    assert registry.versions() == []


def test_a_plugin_may_refuse_before_the_first_step(
    trained: Trained, registry: Registry, monkeypatch: Any
) -> None:
    from adapterhub.plugins import load_plugins

    calls = []

    def event(hook: str, **arguments: Any) -> None:
        calls.append((hook, arguments["run"].recipe.data.train.name))
        raise AdzError("this data set may not be trained on")

    monkeypatch.setattr(load_plugins(), "call_event", event)
    with pytest.raises(AdzError, match="may not be trained on"):
        trained()
    assert calls == [("adapterhub_before_train", "double.jsonl")]
    assert registry.versions() == []


def test_the_loss_is_scored_while_training_when_asked(trained: Trained, registry: Registry,
                                                      tmp_path: Path) -> None:  # fmt: skip
    version = trained(training={"max_steps": 4, "eval_every": 2})
    registry.artifacts(version, tmp_path / "kept")
    lines = (tmp_path / "kept" / "metrics.jsonl").read_text().splitlines()
    scored = [e for e in map(json.loads, lines) if "eval_loss" in e]
    assert [entry["step"] for entry in scored] == [2, 4]
    # The Trainer averages batches, the manifest tokens; both score the same rows.
    assert scored[-1]["eval_loss"] == pytest.approx(version.manifest.metrics["holdout_loss"], 0.1)


def test_held_out_rows_are_never_trained_on(plan_for: Callable[..., Any]) -> None:
    plan = plan_for()
    rows: tuple[Rows, Rows] = rows_of(plan)
    assert len(rows[0]) + len(rows[1]) == 40
    assert not {row.ids for row in rows[0]} & {row.ids for row in rows[1]}


def test_the_configuration_is_canonical_and_names_no_path(
    trained: Trained, registry: Registry, tiny_base_dir: Path
) -> None:
    text = (registry.path(trained()) / "adapter_config.json").read_text()
    settings = json.loads(text)
    assert list(settings) == sorted(settings)
    # A set to PEFT, whose order differs from process to process.
    assert settings["target_modules"] == sorted(settings["target_modules"])
    assert len({name.rsplit(".", 1)[-1] for name in settings["target_modules"]}) == 7
    assert str(tiny_base_dir.parent) not in text
    assert settings["inference_mode"] is True


def test_a_second_process_in_the_same_run_is_refused(
    plan_for: Callable[..., Any], registry: Registry, progress: Any, monkeypatch: Any
) -> None:
    plan, refused = plan_for(), []
    kept = pipeline.prepare

    def prepare(*arguments: Any) -> Any:
        with pytest.raises(AdzError, match="in the middle of this very run") as caught:
            train(plan, registry, progress)
        refused.append(caught.value)
        return kept(*arguments)

    monkeypatch.setattr(pipeline, "prepare", prepare)
    assert train(plan, registry, progress).number == 1
    assert refused
