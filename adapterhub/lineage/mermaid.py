"""A lineage as the text of a Mermaid flowchart."""

from __future__ import annotations

from collections.abc import Iterator

from adapterhub.lineage.graph import Graph, Node

_SHAPES = {"version": ('["', '"]'), "base": ('{{"', '"}}'), "data": ('[("', '")]')}
# Entities as Mermaid writes them; everything else may stand between quotes.
_ESCAPES = {"#": "#35;", "&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;"}


def mermaid(graph: Graph) -> str:
    """The flowchart, sources on the left."""
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: Graph) -> Iterator[str]:
    ids = {id: f"n{position}" for position, id in enumerate(graph.nodes)}
    yield "flowchart LR"
    for node in graph.nodes.values():
        before, after = _SHAPES[node.kind]
        yield f"    {ids[node.id]}{before}{_text(node)}{after}"
    for edge in graph.edges:
        arrow = f'-->|"{_escape(edge.label)}"|' if edge.label else "-->"
        yield f"    {ids[edge.source]} {arrow} {ids[edge.target]}"
    yield "    classDef asked stroke-width:3px"
    yield "    classDef gone stroke-dasharray:4 3,color:#666"
    yield f"    class {ids[graph.root]} asked"
    gone = [ids[node.id] for node in graph.nodes.values() if node.state != "here"]
    if gone:
        yield f"    class {','.join(gone)} gone"


def _text(node: Node) -> str:
    return "<br/>".join(_escape(line) for line in (node.label, node.detail) if line)


def _escape(text: str) -> str:
    return "".join(_ESCAPES.get(letter, letter) for letter in " ".join(text.split()))
