"""The drawing of any lineage: no box over another, no line through a box, every text escaped."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterhub.lineage.graph import Edge, Graph, Node
from adapterhub.lineage.layout import place
from adapterhub.lineage.mermaid import mermaid
from adapterhub.lineage.svg import svg

NASTY = "<b>\"x\" & 'y' #35; `z` ]]> --> \n end"


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Up to 14 versions, each made from any of those before it."""
    count = draw(st.integers(1, 14))
    graph = Graph(f"n{draw(st.integers(0, count - 1))}")
    for number in range(count):
        state = draw(st.sampled_from(["here", "removed", "missing"]))
        label = "x" * draw(st.integers(1, 60))
        graph.nodes[f"n{number}"] = Node(f"n{number}", "version", label, "lora", state)
        parents = draw(st.sets(st.integers(0, number - 1), max_size=4)) if number else set()
        graph.edges += [Edge(f"n{p}", f"n{number}", "0.5") for p in sorted(parents)]
    return graph


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_nothing_overlaps(graph: Graph) -> None:
    sizes = {id: (8.0 * len(n.label) + 20, 48.0) for id, n in graph.nodes.items()}
    layout = place(graph, sizes)
    for one, other in itertools.combinations(layout.boxes.values(), 2):
        beside = one.x + one.width <= other.x or other.x + other.width <= one.x
        below = abs(one.y - other.y) >= (one.height + other.height) / 2 - 1e-6
        assert beside or below
    for edge, line in zip(graph.edges, layout.lines, strict=True):
        source, target = layout.boxes[edge.source], layout.boxes[edge.target]
        assert line[0] == (source.x + source.width, source.y)
        assert line[-1][0] == target.x
        assert abs(line[-1][1] - target.y) < target.height / 2
        assert source.x + source.width < target.x
        # Its straight parts run beside boxes; the curves run between the columns.
        for (x, y), (to_x, to_y) in list(itertools.pairwise(line))[::2][: len(line) // 2]:
            assert y == to_y
            for id, box in layout.boxes.items():
                through = x < box.x + box.width - 1e-6 and to_x > box.x + 1e-6
                assert not through or abs(box.y - y) >= box.height / 2 or id == edge.source
        assert all(0 <= y <= layout.height for _, y in line)
    assert max(b.x + b.width for b in layout.boxes.values()) <= layout.width + 1e-6


@settings(max_examples=20, deadline=None)
@given(graphs())
def test_the_drawing_is_well_formed(graph: Graph) -> None:
    root = ET.fromstring(svg(graph))
    boxes = [r for r in root.iter("{http://www.w3.org/2000/svg}rect") if r.get("rx")]
    assert len(boxes) == len(graph.nodes)
    dashed = sum(node.state != "here" for node in graph.nodes.values())
    assert sum("stroke-dasharray" in box.keys() for box in boxes) == dashed  # noqa: SIM118


@pytest.mark.parametrize("kind", ["version", "base", "data"])
def test_texts_are_escaped(kind: str) -> None:
    graph = Graph("n", {"n": Node("n", kind, NASTY, NASTY)}, [])  # type: ignore[arg-type]
    texts = [
        "".join(t.itertext()) for t in ET.fromstring(svg(graph)).iter() if t.tag[-4:] == "text"
    ]
    assert texts == [NASTY, NASTY]
    (line,) = [line for line in mermaid(graph).splitlines() if line.startswith("    n0")]
    inside = re.fullmatch(r"    n0\W+?\"(.*)\"\W+", line)
    assert inside is not None
    text = inside[1].replace("<br/>", "")
    assert not set('"<>`&') & set(text)
    assert re.sub(r"#(?:35|96|amp|quot|lt|gt);", "", text).count("#") == 0
