"""A lineage as a drawing: one SVG file without scripts, fonts or links."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from adapterhub.lineage.graph import Edge, Graph, Node
from adapterhub.lineage.layout import Box, Layout, place

_MARGIN = 24.0
_PORT = 20.0
_LONGEST = 48
# Of the end of a line, on which its label stands.
_STRAIGHT = 52.0
_COLOURS = {
    "version": ("#eaf1fd", "#2f62c4"),
    "base": ("#f1f1f1", "#6b6b6b"),
    "data": ("#e9f6ec", "#2e8046"),
}
_FONT = "font-family='DejaVu Sans, Verdana, Helvetica, Arial, sans-serif'"


def svg(graph: Graph) -> str:
    """The drawing, sources on the left. The version that was asked for has a thick frame, what
    is not here a broken one."""
    layout = place(graph, {node.id: _size(node, graph) for node in graph.nodes.values()})
    return "\n".join(_lines(graph, layout)) + "\n"


def _size(node: Node, graph: Graph) -> tuple[float, float]:
    # DejaVu Sans is the widest of these fonts.
    width = max(8.6 * len(_cut(node.label)), 6.7 * len(_cut(node.detail)), 60)
    ports = len(graph.sources(node.id))
    return width + 28, max(48.0, _PORT * (ports + 1))


def _lines(graph: Graph, layout: Layout) -> Iterator[str]:
    width, height = layout.width + 2 * _MARGIN, layout.height + 2 * _MARGIN
    title = escape(graph.nodes[graph.root].label)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.1f} {height:.1f}" role="img" aria-label="lineage of {title}">'
    )
    yield f"<title>lineage of {title}</title>"
    yield (
        '<defs><marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0,0.5 L8,4 L0,7.5 z" fill="#777"/></marker>'
        "</defs>"
    )
    yield '<rect width="100%" height="100%" fill="#ffffff"/>'
    yield f'<g transform="translate({_MARGIN:g} {_MARGIN:g})" {_FONT}>'
    for edge, points in zip(graph.edges, layout.lines, strict=True):
        yield _line(points)
        if edge.label:
            yield _line_label(edge, points)
    for id, box in layout.boxes.items():
        yield from _box(graph.nodes[id], box, asked=id == graph.root)
    yield "</g>"
    yield "</svg>"


def _line(points: Sequence[tuple[float, float]]) -> str:
    """Horizontal where it leaves a box, passes a column or arrives; curved between."""
    end_x, end_y = points[-1]
    stops = [*points[:-1], (end_x - _STRAIGHT, end_y), (end_x, end_y)]
    x, y = stops[0]
    path = f"M{x:.1f},{y:.1f}"
    for index, (to_x, to_y) in enumerate(stops[1:]):
        if index % 2 == 0:
            path += f" L{to_x:.1f},{to_y:.1f}"
        else:
            bend = (to_x - x) / 2
            path += f" C{x + bend:.1f},{y:.1f} {to_x - bend:.1f},{to_y:.1f} {to_x:.1f},{to_y:.1f}"
        x, y = to_x, to_y
    return f'<path d="{path}" fill="none" stroke="#777" stroke-width="1.3" marker-end="url(#end)"/>'


def _line_label(edge: Edge, points: Sequence[tuple[float, float]]) -> str:
    x, y = points[-1]
    return (
        f'<text x="{x - 12:.1f}" y="{y - 4:.1f}" font-size="11" text-anchor="end" fill="#333" '
        f'stroke="#ffffff" stroke-width="3" paint-order="stroke">{escape(edge.label)}</text>'
    )


def _box(node: Node, box: Box, *, asked: bool) -> Iterator[str]:
    fill, stroke = _COLOURS[node.kind]
    gone = node.state != "here"
    frame = f'stroke="{stroke}" stroke-width="{2.6 if asked else 1.3:g}"'
    dashes = ' stroke-dasharray="5 4"' if gone else ""
    radius = 4 if node.kind == "version" else 14
    yield "<g>"
    yield f"<title>{escape(f'{node.label} {node.detail}'.strip())}</title>"
    yield (
        f'<rect x="{box.x:.1f}" y="{box.y - box.height / 2:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="{radius}" fill="{"#ffffff" if gone else fill}" '
        f"{frame}{dashes}/>"
    )
    name = box.y - 4 if node.detail else box.y + 5
    colour = "#777" if gone else "#111"
    yield (
        f'<text x="{box.x + 14:.1f}" y="{name:.1f}" font-size="13" font-weight="bold" '
        f'fill="{colour}">{escape(_cut(node.label))}</text>'
    )
    if node.detail:
        yield (
            f'<text x="{box.x + 14:.1f}" y="{box.y + 13:.1f}" font-size="11" '
            f'fill="#666">{escape(_cut(node.detail))}</text>'
        )
    yield "</g>"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
