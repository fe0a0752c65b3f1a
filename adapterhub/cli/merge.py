"""`adz merge`: several adapters become one, without the base model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from adapterhub.cli.output import TerminalProgress, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.merge.recipe import MergeRecipe

_FILE = click.Path(path_type=Path)
_TUNE_OPTIONS = ("data", "test", "metric", "trials", "minutes", "limit")
_CHOSEN_RULES = "adapterhub.merge.rules"
_DEFAULT_RULES = "adapterhub.merge.default_rules"


class MergeCommand(click.Command):
    """Every merge rule of every plugin is a flag too: `--ties` is `--rule ties`."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The options, and a flag for each rule."""
        from adapterhub import specs
        from adapterhub.plugins import load_plugins

        rules = load_plugins().components(specs.MergeRule)
        return [*super().get_params(ctx), *(_rule_flag(n, r.summary) for n, r in rules.items())]


def _rule_flag(name: str, summary: str) -> click.Option:
    def choose(ctx: click.Context, parameter: click.Parameter, given: bool) -> None:
        _choose_rule(ctx, parameter, name if given else None)

    return click.Option(
        [f"rule_{name}".replace("-", "_"), f"--{name}"],
        is_flag=True,
        expose_value=False,
        callback=choose,
        help=f"{summary}.",
    )


def _choose_rule(ctx: click.Context, parameter: click.Parameter, name: str | None) -> None:
    if name:
        key = _DEFAULT_RULES if _is_default(ctx, parameter.name or "") else _CHOSEN_RULES
        ctx.meta.setdefault(key, set()).add(name)


def _is_default(ctx: click.Context, name: str) -> bool:
    sources = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    return ctx.get_parameter_source(name) in sources


@click.command(cls=MergeCommand, short_help="Merge adapters into one, without the base model.")
@click.argument("adapters", nargs=-1)
@click.option(
    "--rule",
    expose_value=False,
    callback=_choose_rule,
    help="How to combine them; regmean by default, linear without input moments.",
)
@click.option("--name", help="The result's name; a-b-ties by default.")
@click.option("--weights", help="A number for each, such as 0.7,0.3; 1/n by default.")
@click.option("--scale", type=float, help="Multiplies the result; 1 by default.")
@click.option("--density", type=float, help="The share of elements kept, above 0 and at most 1.")
@click.option("--rank", help="The result's: max or sum of theirs, a number, or energy=0.99.")
@click.option(
    "--round-rank", is_flag=True, default=None, help="Round it up to one that vLLM serves."
)
@click.option("--seed", type=int, help="Keys the random numbers of a rule; 0 by default.")
@click.option("--space", help="The coordinates in which the rule runs.")
@click.option("--compat", help="Compute as a peer does: peft, mergekit or paper.")
@click.option("--base", help="The base of adapters given as directories.")
@click.option("--out", type=click.Path(path_type=Path), help="Write a PEFT directory instead.")
@click.option("--workers", type=int, help="Threads over modules; one a CPU by default.")
@click.option(
    "--tune",
    "data",
    type=_FILE,
    multiple=True,
    help="Search for the best merge on these rows; a file for each task.",
)
@click.option("--test", type=_FILE, multiple=True, help="Report on these rows, not on half.")
@click.option("--metric", help="How answers are scored with --tune; exact_match by default.")
@click.option("--trials", type=int, help="Merges to try with --tune; 30 by default.")
@click.option("--minutes", type=float, help="Try no further merge after these.")
@click.option("--limit", type=int, help="Rows of each part of each file of --tune.")
@click.option("--dry-run", is_flag=True, help="Check and show what would be merged.")
@click.option(
    "-c", "--config", type=click.Path(path_type=Path), help="A recipe: these options as YAML."
)
@click.option(
    "-o",
    "--option",
    "overrides",
    multiple=True,
    help="One option as key=value, such as density=0.3.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    adapters: tuple[str, ...],
    dry_run: bool,
    config: Path | None,
    overrides: tuple[str, ...],
    as_json: bool,
    **flags: Any,
) -> None:
    """Merge ADAPTERS, references or directories (./dir), into a new version, or into --out.
    One expression stands for all of them: 'sql*0.7+french*0.3', 'ties(sql+fr,density=0.5)'.

    The result needs no base model, and the error of its compression is printed. Weights are
    never normalised silently.
    """
    from adapterhub.cli.merge_report import describe_merge
    from adapterhub.config import validate
    from adapterhub.merge.recipe import MergeRecipe

    values = _values(ctx, adapters, config, overrides, flags)
    tuning = values.pop("tune", None)
    recipe = validate(MergeRecipe, values)
    if tuning is not None:
        _tune(recipe, tuning, dry_run=dry_run, as_json=as_json)
        return
    # The pipeline imports torch, so it comes after all that can be wrong without it.
    from adapterhub.merge.pipeline import merge
    from adapterhub.plugins import open_registry

    progress = TerminalProgress()
    result = merge(recipe, open_registry(), progress, dry_run=dry_run)
    _show(result.warnings, result.as_dict(), describe_merge(result), progress, as_json=as_json)


def _tune(recipe: MergeRecipe, options: dict[str, Any], *, dry_run: bool, as_json: bool) -> None:
    from adapterhub.cli.merge_report import describe_merge
    from adapterhub.cli.tune_report import describe_tuning
    from adapterhub.config import validate
    from adapterhub.errors import usage_error
    from adapterhub.tune.recipe import TuneRecipe

    tuning = validate(TuneRecipe, options, "tune")
    if dry_run:
        raise usage_error("--tune and --dry-run are given", "a search runs what it tries")
    from adapterhub.plugins import open_registry
    from adapterhub.tune.pipeline import tune

    progress = TerminalProgress()
    result = tune(recipe, tuning, open_registry(), progress)
    text = f"{describe_tuning(result)}\n\n{describe_merge(result.merged)}"
    _show(result.merged.warnings, result.as_dict(), text, progress, as_json=as_json)


def _show(
    warnings: Sequence[str],
    value: dict[str, Any],
    text: str,
    progress: TerminalProgress,
    *,
    as_json: bool,
) -> None:
    print_result(value, text, as_json=as_json)
    for warning in warnings:
        progress.warn(warning)


def _take_tuning(values: dict[str, Any], explicit: set[str]) -> None:
    """Move the options of a search from beside the merge's into `tune`."""
    from adapterhub.errors import usage_error

    taken = {key: values.pop(key) for key in _TUNE_OPTIONS if key in values}
    found = {key: value for key, value in taken.items() if value != ()}
    if "tune" in values or "data" in found:
        values["tune"] = {**(values.get("tune") or {}), **found}
    elif lost := explicit & found.keys():
        raise usage_error(f"--{min(lost)} without --tune", "name the rows: --tune FILE")


def _values(
    ctx: click.Context,
    adapters: tuple[str, ...],
    config: Path | None,
    overrides: tuple[str, ...],
    flags: dict[str, Any],
) -> dict[str, Any]:
    """Later wins: the user's defaults, the recipe, -o, then the flags."""
    from adapterhub.config import merge_into, parse_overrides

    given = {key: value for key, value in flags.items() if value is not None}
    defaults = {key for key in given if _is_default(ctx, key)}
    values = {key: given[key] for key in defaults} | _rule(ctx, _DEFAULT_RULES)
    merge_into(values, _read(config) if config else {})
    merge_into(values, parse_overrides(overrides))
    values.update({key: given[key] for key in given if key not in defaults})
    if adapters:
        values["adapters"] = adapters
    values.update(_rule(ctx, _CHOSEN_RULES))
    _take_tuning(values, given.keys() - defaults)
    return values


def _rule(ctx: click.Context, key: str) -> dict[str, str]:
    """The one rule that flags, or the user's defaults, name; empty where they name none."""
    from adapterhub.errors import usage_error

    rules = sorted(ctx.meta.get(key, ()))
    if len(rules) > 1:
        raise usage_error(f"several rules are given: {', '.join(rules)}", "choose one")
    return {"rule": rules[0]} if rules else {}


def _read(config: Path) -> dict[str, Any]:
    """A recipe, or a mergekit configuration as one. Errors name the file."""
    from adapterhub.config import read_recipe
    from adapterhub.errors import AdzError, usage_error
    from adapterhub.merge.mergekit_recipe import from_mergekit, is_mergekit
    from adapterhub.plugins import open_registry

    values = read_recipe(config)
    if not is_mergekit(values):
        return values
    bases = {base.name: base.source for base in open_registry().bases()}
    try:
        recipe, notes = from_mergekit(values, bases)
    except AdzError as error:
        raise usage_error(f"{config}: {error.message}", error.hint) from error
    for note in notes:
        TerminalProgress().note(note)
    return recipe
