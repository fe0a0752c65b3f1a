"""`adz convert`: an adapter of any method becomes a plain LoRA, and the error is measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.convert.result import ConvertResult, LogitCheck


@click.command(short_help="Make a plain LoRA of an adapter of another method.")
@click.argument("adapter")
@click.option(
    "--to",
    type=click.Choice(["lora"]),
    default="lora",
    show_default=True,
    help="The method of the result.",
)
@click.option(
    "--rank",
    help="At most this rank, or energy=0.99: the least that keeps this share of every module's "
    "squared norm. By default that of the adapter, or 16 where it has none.",
)
@click.option("--name", help="The result's name; NAME-lora by default.")
@click.option("--base", help="The base of an adapter given as a directory.")
@click.option(
    "--initial",
    help="The adapter before its training, of one that began as a part of the base (PiSSA, CorDA).",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Compare the logits on these rows. By default on the training file where it is here "
    "under its recorded name, else on a few fixed prompts.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Write a PEFT directory instead.")
@click.option("--workers", type=int, help="Threads over modules; one a CPU by default.")
@json_option
def command(as_json: bool, **flags: Any) -> None:
    """Convert ADAPTER, a reference or a directory (./dir), into a new version, or into --out.

    The result is a plain LoRA, which vLLM serves and `adz merge` merges. How far its weights
    and its logits are from the adapter's is measured and recorded.
    """
    from adapterhub.config import validate
    from adapterhub.convert.recipe import ConvertRecipe

    given = {key: value for key, value in flags.items() if value is not None}
    recipe = validate(ConvertRecipe, given)
    # The pipeline imports torch, so it comes after all that can be wrong without it.
    from adapterhub.convert.pipeline import convert
    from adapterhub.plugins import open_registry

    progress = TerminalProgress()
    result = convert(recipe, open_registry(), progress)
    if result.warning:
        progress.warn(result.warning)
    print_result(result.as_dict(), _describe(result), as_json=as_json)


def _describe(result: ConvertResult) -> str:
    million = result.parameters / 1e6
    lines = [
        f"lora of {result.source} ({result.method})",
        f"{result.modules} modules, rank {result.rank}, {million:,.2f}M parameters",
    ]
    if result.exact:
        lines.append(f"exact: relative error {result.relative_error:.2g}, of float32 itself")
    else:
        lines.append(f"relative error {result.relative_error:.3g} (Frobenius, all modules)")
        lines += [f"  {error:.3g}  {module}" for module, error in result.largest]
    if result.logits:
        lines += _describe_logits(result.logits)
    if result.version:
        lines.append(f"{result.version.reference}  {result.version.digest}")
    elif result.directory:
        lines.append(str(result.directory))
    return "\n".join(lines)


def _describe_logits(check: LogitCheck) -> list[str]:
    lines = [f"logits beside the adapter's, {check.result.tokens} tokens of {check.prompts}:"]
    for label, found in (("result", check.result), ("base", check.base)):
        lines.append(
            f"  {label:6}  largest difference {found.largest:.3g}, mean {found.mean:.3g}, "
            f"KL {found.kl:.3g} nats a token, same likeliest token {found.same:.1%}"
        )
    return lines
