"""`adz train`: a recipe in, a version in the registry out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result
from adapterhub.cli.train_values import merged_values

if TYPE_CHECKING:
    from adapterhub.errors import AdzError
    from adapterhub.manifest import BaseRecord, Version
    from adapterhub.protocols import Registry
    from adapterhub.train.plan import Plan
    from adapterhub.train.scale import Launcher, Parallel


@click.command(short_help="Train an adapter on a base.")
@click.option(
    "--method",
    help="How to adapt: lora (default), dora, ia3, bottleneck, full, ...; docs/methods.md has all.",
)
@click.option("--base", help="The base's name; not needed when there is only one.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="The data: a file, a folder of datasets, or hub:owner/name.",
)
@click.option("--name", help="The adapter's name; made from the data file's when not given.")
@click.option(
    "--objective",
    help="What is optimised: sft (default), dpo, kto, orpo, reward, grpo, rloo, or a plugin's.",
)
@click.option(
    "--quantizer", help="How the base is held: nf4 (QLoRA), int8, ...; docs/methods.md has all."
)
@click.option("--format", "format_name", help="The rows' format; recognised when not given.")
@click.option(
    "--input-moments",
    type=int,
    metavar="RANK",
    help="Of what adz merge --regmean needs; 32 by default, 0 keeps nothing.",
)
@click.option(
    "-c",
    "--config",
    "configs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A recipe in YAML, ours or one of Axolotl, LLaMA-Factory, NeMo AutoModel or TRL; several "
    "are trained as a sweep.",
)
@click.option(
    "-o",
    "--option",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="One option of the recipe, such as method.r=32 or training.lr=1e-3.",
)
@click.option(
    "--sweep",
    "sweep",
    multiple=True,
    metavar="KEY=A,B,...",
    help="Train every combination: --sweep r=8,16 lr=1e-4,3e-4.",
)
@click.argument("axes", nargs=-1, metavar="[KEY=A,B,...]...")
@click.option(
    "--ignore-unknown",
    is_flag=True,
    help="Leave out keys of another trainer's recipe that have no counterpart.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be trained; loads no weights.")
@click.option(
    "--nproc", type=click.IntRange(1), default=1, help="Train on so many processes or GPUs."
)
@click.option(
    "--ray",
    type=click.IntRange(1),
    metavar="N",
    help="Train on so many workers of Ray Train, on this machine or at RAY_ADDRESS.",
)
@click.option(
    "--parallel",
    type=click.Choice(["ddp", "zero1", "zero2", "zero3", "fsdp"]),
    default="ddp",
    help="What the processes share; all but ddp need GPUs (GPU unproven).",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of this recipe.")
@json_option
def command(
    method: str | None,
    base: str | None,
    data: Path | None,
    name: str | None,
    objective: str | None,
    quantizer: str | None,
    format_name: str | None,
    input_moments: int | None,
    configs: tuple[Path, ...],
    overrides: tuple[str, ...],
    sweep: tuple[str, ...],
    axes: tuple[str, ...],
    ignore_unknown: bool,
    dry_run: bool,
    nproc: int,
    ray: int | None,
    parallel: Parallel,
    resume: bool,
    as_json: bool,
) -> None:
    """Train an adapter and commit it to the registry.

    Flags win over -o, -o over -c, -c over the defaults.
    """
    from adapterhub.config import validate
    from adapterhub.errors import usage_error
    from adapterhub.plugins import open_registry
    from adapterhub.train.plan import make_plan
    from adapterhub.train.recipe import TrainRecipe

    flags: dict[str, Any] = {
        "method.name": method,
        "base": base,
        "data.train": data,
        "name": name,
        "objective.name": objective,
        "quantizer.name": quantizer,
        "data.format": format_name,
        "training.input_moments": input_moments,
    }

    def merged(path: Path | None) -> dict[str, Any]:
        return merged_values(path, overrides, flags, ignore_unknown=ignore_unknown)

    if axes and not sweep:
        raise _unexpected(axes[0])
    _check_processes(nproc, ray, parallel)
    if sweep or len(configs) > 1:
        for flag, given in (("--dry-run", dry_run), ("--nproc", nproc > 1), ("--ray", ray)):
            if given:
                raise usage_error(f"a sweep has no {flag}", "try one of its recipes")
        recipes = [(str(c), merged(c)) for c in configs]
        recipes = recipes or [("", merged(None))]
        _sweep(recipes, (*sweep, *axes), resume=resume, as_json=as_json)
        return
    registry = open_registry()
    recipe = validate(TrainRecipe, merged(configs[0] if configs else None))
    if dry_run:
        from adapterhub.train.dry_run import preview_run

        report = preview_run(recipe, registry)
        print_result(report.values, report.text(), as_json=as_json)
        return
    plan = make_plan(recipe, registry)
    launcher: Launcher = "ray" if ray else "local"
    made = _train(plan, registry, ray or nproc, parallel, launcher, resume=resume)
    _print(made, plan.base.name, as_json=as_json)


def _unexpected(word: str) -> AdzError:
    from adapterhub.errors import usage_error
    from adapterhub.plugins import open_registry

    known = any(base.name == word for base in open_registry().bases())
    hint = f"--base {word} names the base" if known else "several values go behind --sweep"
    return usage_error(f"unexpected {word!r}", hint)


def _train(
    plan: Plan,
    registry: Registry,
    processes: int,
    parallel: Parallel,
    launcher: Launcher,
    *,
    resume: bool,
) -> BaseRecord | Version:
    progress = TerminalProgress()
    progress.note(f"learning rate {plan.recipe.training.lr:g} ({plan.lr_source})")
    done = None
    if launcher == "ray" or processes > 1:
        from adapterhub.train.scale import hand_over

        done = hand_over(plan, processes, parallel, progress, resume=resume, launcher=launcher)
    if plan.makes_base:
        from adapterhub.train.new_base import train_base

        return registry.base(done) if done else train_base(plan, registry, progress, resume=resume)
    from adapterhub.train.pipeline import train

    return registry.resolve(done) if done else train(plan, registry, progress, resume=resume)


def _print(made: BaseRecord | Version, base: str, *, as_json: bool) -> None:
    from adapterhub.cli.train_report import summarise, summarise_base, tell, tell_base
    from adapterhub.manifest import Version

    if isinstance(made, Version):
        print_result(summarise(made), tell(made, base), as_json=as_json)
    else:
        print_result(summarise_base(made), tell_base(made), as_json=as_json)


def _check_processes(nproc: int, ray: int | None, parallel: Parallel) -> None:
    from adapterhub.errors import usage_error

    if ray and nproc > 1:
        raise usage_error("--ray and --nproc exclude each other", "--ray N says how many workers")
    if ray and parallel != "ddp":
        raise usage_error(f"--ray trains with ddp, not {parallel}", "give --nproc instead")
    if parallel != "ddp" and nproc == 1:
        raise usage_error(f"--parallel {parallel} shares among processes", "give --nproc too")


def _sweep(
    recipes: list[tuple[str, dict[str, Any]]], axes: tuple[str, ...], *, resume: bool, as_json: bool
) -> None:
    from adapterhub.cli.sweep_report import describe_sweep, summarise
    from adapterhub.config import validate
    from adapterhub.plugins import open_registry
    from adapterhub.train.plan import make_plan
    from adapterhub.train.recipe import TrainRecipe
    from adapterhub.train.result import draw_sweep
    from adapterhub.train.sweep import combinations, sweep

    registry = open_registry()
    plans = [
        (" ".join(filter(None, (name, label))), make_plan(validate(TrainRecipe, values), registry))
        for name, recipe in recipes
        for label, values in combinations(recipe, axes)
    ]
    result = sweep(plans, registry, TerminalProgress(), resume=resume)
    plot = draw_sweep(result.members, registry)
    print_result(summarise(result, plot), describe_sweep(result, plot), as_json=as_json)
