"""Placing the boxes of a lineage: in columns from the sources to the results, so that few lines
cross and no line passes through a box. All lengths are in pixels."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adapterhub.lineage.graph import Graph

_SWEEPS = 12
_ROW_GAP = 22.0
_COLUMN_GAP = 130.0
# A line that passes a column needs less room than a box.
_LANE = 10.0


@dataclass(frozen=True, slots=True)
class Box:
    """Where a node stands: the left edge, the middle of its height, and its size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Layout:
    """boxes: by node. lines: by edge, as it is numbered in the graph, the points that it goes
    through from right of its source to left of its target; every other part of it is straight,
    the first one too."""

    boxes: Mapping[str, Box]
    lines: Sequence[Sequence[tuple[float, float]]]
    width: float
    height: float


def place(graph: Graph, sizes: Mapping[str, tuple[float, float]]) -> Layout:
    """Lay out the graph. sizes: the width and height of every node's box."""
    columns = _columns(graph)
    paths = [_path(number, graph, columns) for number in range(len(graph.edges))]
    column_of = {id: column for path in paths for id, column in path} | columns
    heights = {id: sizes[id][1] if id in sizes else _LANE for id in column_of}
    links = [(a[0], b[0]) for path in paths for a, b in itertools.pairwise(path)]
    rows = _order(column_of, links)
    middles = _middles(rows, heights, links)
    widths = [max(sizes[id][0] if id in sizes else 0.0 for id in row) for row in rows]
    lefts = [sum(widths[:i]) + i * _COLUMN_GAP for i in range(len(rows))]
    top = min(middles[id] - heights[id] / 2 for id in middles)
    middles = {id: y - top for id, y in middles.items()}
    bottom = max(middles[id] + heights[id] / 2 for id in middles)
    boxes = {id: Box(lefts[c], middles[id], *sizes[id]) for id, c in columns.items()}
    lines = _lines(graph, paths, boxes, middles, lefts, widths)
    return Layout(boxes, lines, lefts[-1] + widths[-1], bottom)


def _columns(graph: Graph) -> dict[str, int]:
    """Each node right of all that it was made from; a source directly left of what needs it."""
    columns = dict.fromkeys(graph.nodes, 0)
    for _ in graph.nodes:
        for edge in graph.edges:
            columns[edge.target] = max(columns[edge.target], columns[edge.source] + 1)
    made = {edge.target for edge in graph.edges}
    for id in graph.nodes.keys() - made:
        columns[id] = min((columns[e.target] for e in graph.edges if e.source == id), default=1) - 1
    return columns


def _path(number: int, graph: Graph, columns: Mapping[str, int]) -> list[tuple[str, int]]:
    """The nodes that an edge goes through with their columns: a lane of its own in each between."""
    edge = graph.edges[number]
    first, last = columns[edge.source], columns[edge.target]
    lanes = [(f"lane:{number}:{column}", column) for column in range(first + 1, last)]
    return [(edge.source, first), *lanes, (edge.target, last)]


def _order(columns: Mapping[str, int], links: Sequence[tuple[str, str]]) -> list[list[str]]:
    """The nodes of each column from top to bottom: near the middle of their neighbours."""
    rows: list[list[str]] = [[] for _ in range(max(columns.values()) + 1)]
    for id, column in columns.items():
        rows[column].append(id)
    before: dict[str, list[str]] = {id: [] for id in columns}
    after: dict[str, list[str]] = {id: [] for id in columns}
    for source, target in links:
        after[source].append(target)
        before[target].append(source)
    for sweep in range(_SWEEPS):
        forwards = sweep % 2 == 0
        neighbours = before if forwards else after
        for row in rows if forwards else rows[::-1]:
            place = {id: i for other in rows for i, id in enumerate(other)}
            keys = {
                id: sum(place[n] for n in neighbours[id]) / len(neighbours[id])
                if neighbours[id]
                else place[id]
                for id in row
            }
            row.sort(key=lambda id: keys[id])
    return rows


def _middles(
    rows: Sequence[Sequence[str]],
    heights: Mapping[str, float],
    links: Sequence[tuple[str, str]],
) -> dict[str, float]:
    """The middle of each node's height: near its neighbours', and none over another."""
    near: dict[str, list[str]] = {id: [] for row in rows for id in row}
    for source, target in links:
        near[source].append(target)
        near[target].append(source)
    middles: dict[str, float] = {}
    for row in rows:
        wanted = 0.0
        for id in row:
            middles[id] = wanted + heights[id] / 2
            wanted += heights[id] + _ROW_GAP
    for sweep in range(2 * _SWEEPS):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            wishes = [
                sum(middles[n] for n in near[id]) / len(near[id]) if near[id] else middles[id]
                for id in row
            ]
            middles.update(zip(row, _apart(wishes, [heights[id] for id in row]), strict=True))
    return middles


def _apart(wishes: Sequence[float], heights: Sequence[float]) -> list[float]:
    """The positions nearest to the wishes at which nothing overlaps: what does not fit moves as
    one block to the mean of its wishes."""
    blocks: list[tuple[float, int]] = []
    offsets = [0.0]
    for one, other in itertools.pairwise(heights):
        offsets.append(offsets[-1] + (one + other) / 2 + _ROW_GAP)
    for wish, offset in zip(wishes, offsets, strict=True):
        blocks.append((wish - offset, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (last, count), (mean, more) = blocks.pop(), blocks.pop()
            blocks.append(((mean * more + last * count) / (more + count), more + count))
    starts = [start for start, count in blocks for _ in range(count)]
    return [start + offset for start, offset in zip(starts, offsets, strict=True)]


def _lines(
    graph: Graph,
    paths: Sequence[Sequence[tuple[str, int]]],
    boxes: Mapping[str, Box],
    middles: Mapping[str, float],
    lefts: Sequence[float],
    widths: Sequence[float],
) -> list[list[tuple[float, float]]]:
    """The points of every edge; those that end at one box end below each other."""
    ports = _ports(graph, paths, boxes, middles)
    lines = []
    for number, path in enumerate(paths):
        start, end = boxes[path[0][0]], boxes[path[-1][0]]
        # Straight to the column's edge first: a wider box may stand below.
        edge = lefts[path[0][1]] + widths[path[0][1]]
        points = [(start.x + start.width, start.y), (edge, start.y)]
        for id, column in path[1:-1]:
            points += [(lefts[column], middles[id]), (lefts[column] + widths[column], middles[id])]
        lines.append([*points, (end.x, ports[number])])
    return lines


def _ports(
    graph: Graph,
    paths: Sequence[Sequence[tuple[str, int]]],
    boxes: Mapping[str, Box],
    middles: Mapping[str, float],
) -> dict[int, float]:
    """The height at which each edge ends, in the order of where they come from."""
    ports: dict[int, float] = {}
    for id, box in boxes.items():
        ending = [n for n, edge in enumerate(graph.edges) if edge.target == id]
        ending.sort(key=lambda n: middles[paths[n][-2][0]])
        for position, number in enumerate(ending, 1):
            ports[number] = box.y - box.height / 2 + box.height * position / (len(ending) + 1)
    return ports
