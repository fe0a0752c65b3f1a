"""`adz diff`: two adapters beside each other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import format_table, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.diff.distance import Distance
    from adapterhub.diff.facts import Difference, Scores
    from adapterhub.diff.pipeline import Comparison

_SHOWN = 10
_WIDEST = 60


@click.command(short_help="Compare two adapters.")
@click.argument("first")
@click.argument("second")
@click.option("--all", "everything", is_flag=True, help="Show every module, not the ten farthest.")
@json_option
def command(first: str, second: str, everything: bool, as_json: bool) -> None:
    """Compare the configuration, the lineage, the updates and the scores of FIRST and SECOND.

    Each is a reference or a directory (./dir). The distance of a module is the Frobenius norm
    of the difference of its two updates; relative is the distance over the larger norm.
    """
    # Thousands of small matrices: threads cost more than they give. Read when numpy is imported.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from adapterhub.diff.pipeline import compare
    from adapterhub.plugins import open_registry

    found = compare(open_registry(), first, second)
    text = "\n\n".join(_sections(found, everything))
    print_result(found.as_dict(), text, as_json=as_json)


def _sections(found: Comparison, everything: bool) -> Iterator[str]:
    yield from _differences("configuration", found.labels, found.configuration)
    yield from _differences("lineage", found.labels, found.lineage)
    yield _updates(found)
    shown = [part for part in found.distances if part.absolute > 0]
    rows = shown if everything else shown[:_SHOWN]
    if rows:
        yield _distances(rows, len(shown))
    if found.scores:
        yield _scores(found.labels, found.scores)


def _differences(
    title: str, labels: tuple[str, str], differences: Sequence[Difference]
) -> Iterator[str]:
    if differences:
        rows = [(f"  {d.key}", *(_short(value) for value in d.values)) for d in differences]
        yield format_table((title, *labels), rows)


def _short(value: Any) -> str:
    if value is None:
        return "-"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= _WIDEST else text[: _WIDEST - 3] + "..."


def _updates(found: Comparison) -> str:
    total = found.total
    if total.absolute == 0:
        return "every tensor computes the same"
    differing = sum(part.absolute > 0 for part in found.distances)
    kind = "modules" if all(part.ranks for part in found.distances) else "modules and tensors"
    norms = " and ".join(f"{norm:.4g}" for norm in total.norms)
    return (
        f"{differing} of {len(found.distances)} {kind} differ: norms {norms}, "
        f"distance {total.absolute:.4g}, relative {total.relative:.3g}, cosine {_cosine(total)}"
    )


def _distances(rows: Sequence[Distance], total: int) -> str:
    header = ("farthest apart", "ranks", "norms", "", "distance", "relative", "cosine")
    table = format_table(
        header,
        [
            (
                f"  {part.name}",
                "-" if part.ranks is None else f"{part.ranks[0]}, {part.ranks[1]}",
                f"{part.norms[0]:.4g}",
                f"{part.norms[1]:.4g}",
                f"{part.absolute:.4g}",
                f"{part.relative:.3g}",
                _cosine(part),
            )
            for part in rows
        ],
    )
    rest = total - len(rows)
    return table + (f"\n  and {rest} more: --all" if rest else "")


def _cosine(part: Distance) -> str:
    return "-" if part.cosine is None else f"{part.cosine:+.3f}"


def _scores(labels: tuple[str, str], scores: Sequence[Scores]) -> str:
    header = ("scores", "metric", "shots", *labels, "difference")
    return format_table(
        header,
        [
            (
                f"  {s.data}",
                s.metric,
                s.shots,
                *("-" if v is None else f"{v:.4g}" for v in s.values),
                "-" if s.difference is None else f"{s.difference:+.4g}",
            )
            for s in scores
        ],
    )
