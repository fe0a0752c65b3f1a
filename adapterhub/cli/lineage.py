"""`adz lineage`: where a version or a base comes from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import format_weights, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.lineage.graph import Graph


@click.command(short_help="Show what a version or a base was made from.")
@click.argument("reference")
@click.option("--children", is_flag=True, help="Also what was made from it.")
@click.option("--svg", type=click.Path(path_type=Path), help="Write a drawing to this file.")
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flowchart.")
@json_option
def command(reference: str, children: bool, svg: Path | None, mermaid: bool, as_json: bool) -> None:
    """Show the versions, bases and data sets that REFERENCE, a version or a base, was made from.

    A merge's operands stand with their weights. What was removed, or never was in this
    registry, is marked.
    """
    from adapterhub.lineage.graph import lineage
    from adapterhub.plugins import open_registry

    registry = open_registry()
    graph = lineage(registry, reference, children=children)
    weights = registry.splits().get(reference)
    if weights is not None:
        click.echo(
            f"{reference} is split, {format_weights(weights)}: its heaviest version", err=True
        )
    if svg is not None:
        from adapterhub.lineage.svg import svg as draw

        svg.write_text(draw(graph), encoding="utf-8")
        click.echo(f"wrote {svg}", err=True)
        if not (mermaid or as_json):
            return
    print_result(graph.as_dict(), _text(graph, children, mermaid), as_json=as_json)


def _text(graph: Graph, children: bool, mermaid: bool) -> str:
    if mermaid:
        from adapterhub.lineage.mermaid import mermaid as flowchart

        return flowchart(graph).rstrip("\n")
    from adapterhub.lineage.tree import draw_tree

    tree = draw_tree(graph)
    if not children:
        return tree
    below = draw_tree(graph, children=True) if graph.targets(graph.root) else "nothing"
    return f"{tree}\n\nmade from it\n{below}"
