"""`adz rebuild`: a version is made again, and its bytes are compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.rebuild.result import RebuildResult


@click.command(short_help="Make a version again and compare the bytes.")
@click.argument("reference")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A file that it was trained on, where it is no longer at its recorded place; known by "
    "its sha256.",
)
@click.option("--deep", is_flag=True, help="Rebuild what it was made from too, the oldest first.")
@json_option
def command(reference: str, data: tuple[Path, ...], deep: bool, as_json: bool) -> int:
    """Make REFERENCE again by its recorded recipe and compare the payload; commit nothing.

    A merge is made from its parents, a conversion from its source, a training from its data.
    Exits with 3 where the bytes differ, and says where and by how much. They can differ on
    another kind of CPU, or with other versions of the libraries, which are listed.
    """
    from adapterhub.errors import EXIT_OK, EXIT_VERIFICATION
    from adapterhub.plugins import open_registry
    from adapterhub.rebuild.pipeline import rebuild

    found = list(rebuild(reference, open_registry(), TerminalProgress(), data=data, deep=deep))
    text = "\n".join(_describe(result) for result in found)
    print_result([result.as_dict() for result in found], text, as_json=as_json)
    return EXIT_OK if all(result.same for result in found) else EXIT_VERIFICATION


def _describe(result: RebuildResult) -> str:
    if result.same:
        lines = [f"{result.reference}  same  {result.recorded}"]
    else:
        lines = [f"{result.reference}  different  {result.rebuilt}, recorded {result.recorded}"]
    for difference in result.differences:
        lines.append(f"  {difference.file}: {difference.what}")
        lines += [
            f"    {t.relative:.3g} relative, {t.largest:.3g} at most  {t.tensor}"
            for t in difference.tensors
        ]
    for name, (then, now) in result.environment.items():
        lines.append(f"  {name} was {then} and is {now or 'not installed'}")
    return "\n".join(lines)
