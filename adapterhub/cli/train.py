"""`adz train`: a recipe in, a version in the registry out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.manifest import Version
    from adapterhub.train.plan import Plan


@click.command(short_help="Train an adapter on a base.")
@click.option("--method", help="How to adapt: lora (default), rslora, dora, ia3, prefix, prompt.")
@click.option("--base", help="The base's name; not needed when there is only one.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="The data: a file, a folder of datasets, or hub:owner/name.",
)
@click.option("--name", help="The adapter's name; made from the data file's when not given.")
@click.option(
    "--objective", help="What is optimised: sft (default), dpo, kto, orpo, reward, grpo, rloo."
)
@click.option("--quantizer", help="How the base is held: nf4 (QLoRA), int8.")
@click.option("--format", "format_name", help="The rows' format; recognised when not given.")
@click.option(
    "--input-moments",
    type=int,
    metavar="RANK",
    help="Of what adz merge --regmean needs; 32 by default, 0 keeps nothing.",
)
@click.option("-c", "--config", type=click.Path(path_type=Path), help="A recipe in YAML.")
@click.option(
    "-o",
    "--option",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="One option of the recipe, such as method.r=32 or training.lr=1e-3.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be trained; loads no weights.")
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
    config: Path | None,
    overrides: tuple[str, ...],
    dry_run: bool,
    resume: bool,
    as_json: bool,
) -> None:
    """Train an adapter and commit it to the registry.

    Flags win over -o, -o over -c, -c over the defaults.
    """
    from adapterhub.config import validate
    from adapterhub.plugins import open_registry
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
    values = _merged(config, overrides, flags)
    recipe = validate(TrainRecipe, values)
    registry = open_registry()

    from adapterhub.train.plan import make_plan

    plan = make_plan(recipe, registry)
    if dry_run:
        from adapterhub.train.dry_run import preview_run

        report = preview_run(plan)
        print_result(report.values, report.text(), as_json=as_json)
        return

    from adapterhub.train.pipeline import train

    progress = TerminalProgress()
    progress.note(f"learning rate {plan.recipe.training.lr:g} ({plan.lr_source})")
    version = train(plan, registry, progress, resume=resume)
    print_result(_summary(version), _text(version, plan), as_json=as_json)


def _merged(
    config: Path | None, overrides: tuple[str, ...], flags: dict[str, Any]
) -> dict[str, Any]:
    from adapterhub.config import merge_into, parse_overrides, read_recipe
    from adapterhub.errors import usage_error

    values: dict[str, Any] = {}
    if config is not None:
        merge_into(values, _from_folder(read_recipe(config), config.parent))
    for source in (parse_overrides(overrides), _nested(flags)):
        for part in (values, source):
            _expand_names(part)
        merge_into(values, source)
    data = values.get("data")
    if not isinstance(data, dict) or "train" not in data:
        raise usage_error("no data is given", "use --data FILE, or data.train in the recipe")
    return values


def _nested(flags: dict[str, Any]) -> dict[str, Any]:
    from adapterhub.config import merge_into

    result: dict[str, Any] = {}
    for key, value in flags.items():
        if value is not None:
            part, _, option = key.partition(".")
            merge_into(result, {part: {option: value}} if option else {part: value})
    return result


def _expand_names(values: dict[str, Any]) -> None:
    """`method: lora` is short for `method: {name: lora}`."""
    for key in ("method", "quantizer", "objective"):
        if isinstance(values.get(key), str):
            values[key] = {"name": values[key]}


def _from_folder(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A recipe's relative paths count from its folder, wherever `adz` is called."""
    if isinstance(values.get("data"), list):
        values["data"] = {"train": values["data"]}
    data = values.get("data")
    if not isinstance(data, dict):
        return values
    for key in ("train", "holdout"):
        if isinstance(data.get(key), str):
            data[key] = _located(folder, data[key])
    if isinstance(data.get("train"), list):
        data["train"] = [
            {**part, "path": _located(folder, part["path"])}
            if isinstance(part, dict) and isinstance(part.get("path"), str)
            else (_located(folder, part) if isinstance(part, str) else part)
            for part in data["train"]
        ]
    return values


def _located(folder: Path, source: str) -> str:
    return source if source.startswith("hub:") else os.path.normpath(folder / source)


def _summary(version: Version) -> dict[str, Any]:
    return {
        "reference": version.reference,
        "digest": version.digest,
        "method": version.manifest.method,
        "base": version.manifest.base.name,
        "adapter": version.manifest.adapter,
        "metrics": version.manifest.metrics,
    }


def _text(version: Version, plan: Plan) -> str:
    from adapterhub.train.pipeline import describe

    return "\n".join(
        (
            f"{version.reference}  {describe(version.manifest.metrics)}",
            "next:",
            f"  adz eval {version.name} --data TEST.jsonl    # rows that it has not seen",
            f"  adz chat {version.name}",
            f"  adz serve {plan.base.name}",
        )
    )
