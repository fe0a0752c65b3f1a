"""What a run leaves: its manifest, metrics, curve and recipe, committed as one version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
import yaml

from adapterhub import specs
from adapterhub.bases.adapter_files import CONFIG
from adapterhub.environment import THREADS, environment
from adapterhub.home import adz_home
from adapterhub.manifest import BaseLink, Manifest, Version
from adapterhub.moments import INPUT_MOMENTS
from adapterhub.plugins import load_plugins

if TYPE_CHECKING:
    from adapterhub.protocols import Registry
    from adapterhub.train.plan import Plan
    from adapterhub.train.run import Run
    from adapterhub.train.sweep import Member

LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "safetensors")


def commit_run(run: Run, registry: Registry, payload: Path, artifacts: Path) -> Version:
    """Write the artifacts and commit the payload as the next version of the run's name."""
    shutil.rmtree(artifacts, ignore_errors=True)
    artifacts.mkdir(parents=True)
    write_artifacts(run, artifacts)
    return registry.commit(make_manifest(run, payload), payload, artifacts)


def write_artifacts(run: Run, directory: Path) -> None:
    """metrics.jsonl (one line a logged step), loss.png, recipe.yaml, and the input moments where
    they were measured."""
    lines = [json.dumps(entry, sort_keys=True) for entry in run.history]
    (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = yaml.safe_dump(run.plan.resolved, sort_keys=False, allow_unicode=True)
    (directory / "recipe.yaml").write_text(recipe, encoding="utf-8")
    draw_curve(run, directory / "loss.png")
    if run.moments is not None:
        run.moments.save(directory / INPUT_MOMENTS)


def draw_curve(run: Run, path: Path) -> None:
    """The training loss over the steps, and the held-out loss before, during and after."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = [(entry["step"], entry["loss"]) for entry in run.history if "loss" in entry]
    axes.plot([s for s, _ in steps], [v for _, v in steps], linewidth=1, label="training")
    held = [(e["step"], e["eval_loss"]) for e in run.history if "eval_loss" in e]
    if "holdout_loss" in run.facts:
        held = [(0, run.facts["holdout_loss_base"]), *held]
        held.append((run.facts["steps"], run.facts["holdout_loss"]))
    axes.plot([s for s, _ in held], [v for _, v in held], marker="o", label="held out")
    axes.set(xlabel="step", ylabel="loss (nats a token)", title=run.plan.name)
    axes.legend()
    figure.savefig(path, dpi=100, metadata={"Software": None})


def draw_sweep(members: Sequence[Member], registry: Registry) -> Path:
    """The training losses of a sweep's runs in one picture below ADZ_HOME; returns its path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    made = [member for member in members if member.version is not None]
    for member in made:
        points = _logged(member.version, registry)
        axes.plot([s for s, _ in points], [v for _, v in points], linewidth=1, label=member.label)
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    axes.legend()
    last = made[-1].version.reference if made and made[-1].version else "sweep"
    path = adz_home() / "sweeps" / f"{last.replace('/', '--').replace('@', '-')}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    return path


def _logged(version: Version | None, registry: Registry) -> list[tuple[int, float]]:
    """(step, loss) of a version's metrics."""
    if version is None:
        return []
    with TemporaryDirectory() as folder:
        registry.artifacts(version, Path(folder) / "kept")
        lines = (Path(folder) / "kept" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines if line]
    return [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]


def make_manifest(run: Run, payload: Path) -> Manifest:
    """Everything that the version's manifest says of the run."""
    plan = run.plan
    trained = [p for p in run.model.parameters() if p.requires_grad]
    adapter: dict[str, Any] = {
        "modules": len(run.layers),
        "parameters": sum(p.numel() for p in trained),
        "dtype": str(trained[0].dtype).removeprefix("torch."),
    }
    stored = json.loads((payload / CONFIG).read_text(encoding="utf-8"))
    for fact, option in (("rank", "r"), ("alpha", "lora_alpha")):
        # What is stored counts: some methods end at another rank than they trained.
        if stored.get(option):
            adapter[fact] = stored[option]
    return Manifest(
        name=plan.name,
        method=plan.recipe.method.name,
        storage="peft" if plan.method.storage == "peft" else "own",
        made_by="train",
        base=BaseLink(status="recorded", name=plan.base.name, digests=plan.base.digests),
        quantizer=plan.recipe.quantizer.name if plan.recipe.quantizer else None,
        objective=plan.recipe.objective.name,
        prompt_format=plan.prompt_format,
        adapter=adapter,
        recipe=plan.resolved,
        data=tuple(data.record() for data in plan.files),
        metrics=run.facts,
        environment=made_with(plan),
    )


def made_with(plan: Plan) -> dict[str, str]:
    """Versions of the libraries and plugins of a run, and the number of threads."""
    formats = [load_plugins().get(specs.Format, data.format) for data in plan.files]
    quantizers = [plan.quantizer] if plan.quantizer else []
    found = environment(LIBRARIES, plan.method, plan.objective, *quantizers, *formats)
    # Sums are split among threads, and every split rounds in a way of its own.
    return found | {THREADS: str(torch.get_num_threads())}
