"""A lineage as a tree of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from adapterhub.lineage.graph import Edge, Graph, Node

Branches = Callable[[str], list[tuple[Edge, Node]]]


def draw_tree(graph: Graph, *, children: bool = False) -> str:
    """What the root was made from, or with `children` what was made from it. What stands at two
    places is drawn in full at the first."""
    root = graph.nodes[graph.root]
    lines = [_text(root, "")]
    lines += _below(graph.targets if children else graph.sources, root, "", {root.id})
    return "\n".join(lines)


def _below(branches: Branches, node: Node, indent: str, seen: set[str]) -> Iterator[str]:
    below = branches(node.id)
    for position, (edge, other) in enumerate(below):
        last = position == len(below) - 1
        again = other.id in seen and bool(branches(other.id))
        text = _text(other, edge.label) + (" (see above)" if again else "")
        yield f"{indent}{'└── ' if last else '├── '}{text}"
        if not again:
            seen.add(other.id)
            yield from _below(branches, other, indent + ("    " if last else "│   "), seen)


def _text(node: Node, label: str) -> str:
    name = node.label if node.kind == "version" else f"{node.kind} {node.label}"
    return (f"{label} x " if _is_weight(label) else f"{label}: " if label else "") + (
        f"{name}  {node.detail}" if node.detail else name
    )


def _is_weight(label: str) -> bool:
    return label[:1].isdigit() or label[:1] == "-"
