"""The graph of a version's or a base's lineage, from the records of the registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adapterhub.bases.choose import base_or_version
from adapterhub.errors import AdzError
from adapterhub.manifest import BaseDigests, BaseLink, BaseRecord, Manifest, Parent, Version
from adapterhub.protocols import Registry

Kind = Literal["version", "base", "data"]
State = Literal["here", "removed", "missing"]

_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Node:
    """A version, a base or a data set. detail: one line about it. state: `removed` from this
    registry, or `missing`: it was never here, as of a pulled version's parents."""

    id: str
    kind: Kind
    label: str
    detail: str = ""
    state: State = "here"


@dataclass(frozen=True, slots=True)
class Edge:
    """`target` was made from `source`. label: the weight of a merge's operand, or the role."""

    source: str
    target: str
    label: str = ""


@dataclass(slots=True)
class Graph:
    """root: the id of the version or base that was asked for."""

    root: str
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)

    def sources(self, node: str) -> list[tuple[Edge, Node]]:
        """What a node was made from."""
        return [(e, self.nodes[e.source]) for e in self.edges if e.target == node]

    def targets(self, node: str) -> list[tuple[Edge, Node]]:
        """What was made from a node."""
        return [(e, self.nodes[e.target]) for e in self.edges if e.source == node]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "root": self.root,
            "nodes": [
                {"id": n.id, "kind": n.kind, "label": n.label, "detail": n.detail, "state": n.state}
                for n in self.nodes.values()
            ],
            "edges": [
                {"source": e.source, "target": e.target, "label": e.label} for e in self.edges
            ],
        }


def lineage(registry: Registry, reference: str, *, children: bool = False) -> Graph:
    """What a version or a base was made from, to the bases and data sets; with `children` also
    what was made from it, and from that. Raises AdzError for an unknown reference."""
    found = base_or_version(registry, reference)
    if isinstance(found, BaseRecord):
        graph = Graph(_base_id(found.digests))
        _add_base(graph, registry, graph.root, _link(found.name, found.digests))
    else:
        graph = Graph(found.digest)
        _add_ancestors(graph, registry, found)
    if children:
        _add_descendants(graph, registry)
    return graph


def _add_ancestors(graph: Graph, registry: Registry, version: Version) -> None:
    waiting = [version]
    while waiting:
        one = waiting.pop()
        if one.digest in graph.nodes:
            continue
        graph.nodes[one.digest] = _of_version(one)
        waiting += _add_parents(graph, registry, one)
        # A merge has the base of its parents.
        if not one.manifest.parents:
            _add_base_of(graph, registry, one)
        for entry in one.manifest.data:
            _add_data(graph, entry, one.digest)


def _add_parents(graph: Graph, registry: Registry, version: Version) -> Iterator[Version]:
    for parent in version.manifest.parents:
        graph.edges.append(Edge(parent.digest, version.digest, _label(parent)))
        try:
            yield registry.resolve(f"{parent.name}@{parent.digest}")
        except AdzError:
            reference = f"{parent.name}@{parent.version}"
            state = _state(registry, parent)
            detail = "removed here" if state == "removed" else "not in this registry"
            node = Node(parent.digest, "version", reference, detail, state)
            graph.nodes.setdefault(parent.digest, node)


def _add_descendants(graph: Graph, registry: Registry) -> None:
    children: dict[str, list[tuple[Node, str]]] = {}
    for version in registry.versions():
        node, manifest = _of_version(version), version.manifest
        for parent in manifest.parents:
            children.setdefault(parent.digest, []).append((node, _label(parent)))
        if not manifest.parents and manifest.base.digests:
            children.setdefault(_base_id(manifest.base.digests), []).append((node, ""))
    for base in registry.bases():
        origin = _origin(base)
        if origin and origin.digests:
            id = _base_id(base.digests)
            node = _of_base(id, _link(base.name, base.digests), base)
            children.setdefault(_base_id(origin.digests), []).append((node, ""))
    waiting, done = [graph.root], set()
    while waiting:
        id = waiting.pop()
        if id in done:
            continue
        done.add(id)
        for child, label in children.get(id, ()):
            graph.nodes.setdefault(child.id, child)
            graph.edges.append(Edge(id, child.id, label))
            waiting.append(child.id)


def _state(registry: Registry, parent: Parent) -> State:
    """What became of a parent that cannot be resolved."""
    try:
        log = registry.log(parent.name)
    except AdzError:
        return "missing"
    actions = [entry.action for entry in log if entry.version == parent.version]
    ended = [action for action in actions if action in ("remove", "restore")]
    return "removed" if ended and ended[-1] == "remove" else "missing"


def _of_version(version: Version) -> Node:
    return Node(version.digest, "version", version.reference, _detail(version.manifest))


def _detail(manifest: Manifest) -> str:
    rank = manifest.adapter.get("rank")
    method = manifest.method + (f" over {manifest.quantizer}" if manifest.quantizer else "")
    facts = [method + (f", rank {rank}" if rank else ""), _making(manifest)]
    return ", ".join(fact for fact in facts if fact)


def _making(manifest: Manifest) -> str:
    """How it was made, and a merge by which rule."""
    if manifest.made_by != "merge":
        return {"train": "trained", "import": "imported", "convert": "converted"}[manifest.made_by]
    recipe = manifest.recipe
    space = f" in {recipe['space']}" if "space" in recipe else ""
    parts = [str(recipe.get("rule", "merge")) + space]
    if "density" in recipe:
        parts.append(f"density {recipe['density']:g}")
    operands = len(recipe.get("adapters", ())) - len(manifest.parents)
    if operands > 0:
        parts.append(f"{operands} more from directories")
    return ", ".join(parts)


def _label(parent: Parent) -> str:
    if parent.weight is not None:
        return f"{parent.weight:.3g}"
    return "" if parent.role == "operand" else parent.role


def _add_base_of(graph: Graph, registry: Registry, version: Version) -> None:
    link = version.manifest.base
    id = _base_id(link.digests) if link.digests else f"base:unknown:{version.digest}"
    _add_base(graph, registry, id, link)
    label = "" if link.status == "recorded" else link.status
    graph.edges.append(Edge(id, version.digest, label))


def _add_base(graph: Graph, registry: Registry, id: str, link: BaseLink) -> None:
    """A base with what it was made from."""
    if id in graph.nodes:
        return
    digests = link.digests
    known = [b for b in registry.bases() if digests and b.digests.weights == digests.weights]
    base = next((b for b in known if b.name == link.name), known[0] if known else None)
    graph.nodes[id] = _of_base(id, link, base)
    origin = _origin(base) if base else None
    if base and base.derivation and origin and origin.digests:
        source = _base_id(origin.digests)
        _add_base(graph, registry, source, origin)
        graph.edges.append(Edge(source, id))
        for entry in base.derivation.get("data", ()):
            _add_data(graph, entry, id)


def _origin(base: BaseRecord) -> BaseLink | None:
    """The base that this one was made from."""
    made = base.derivation or {}
    if "digests" not in made:
        return None
    return _link(str(made["from"]), BaseDigests.model_validate(made["digests"]))


def _link(name: str, digests: BaseDigests) -> BaseLink:
    return BaseLink(status="recorded", name=name, digests=digests)


def _base_id(digests: BaseDigests) -> str:
    return f"base:{digests.weights}"


def _of_base(id: str, link: BaseLink, base: BaseRecord | None) -> Node:
    if link.digests is None:
        return Node(id, "base", "unknown base")
    weights = link.digests.weights.removeprefix("sha256:")[:_DIGITS]
    if base is None:
        name = link.name or "base"
        return Node(id, "base", name, f"{weights}, not in this registry", "missing")
    made = f"{base.derivation['kind']}, " if base.derivation and "kind" in base.derivation else ""
    return Node(id, "base", base.name, f"{base.architecture}, {made}{weights}")


def _add_data(graph: Graph, entry: Mapping[str, Any], target: str) -> None:
    digest = str(entry.get("sha256", "")).removeprefix("sha256:")
    file = str(entry.get("file", "data"))
    id = f"data:{digest or f'{target}:{file}'}"
    facts = [f"{entry['rows']} rows" if "rows" in entry else "", str(entry.get("format", ""))]
    detail = ", ".join(fact for fact in (*facts, digest[:_DIGITS]) if fact)
    graph.nodes.setdefault(id, Node(id, "data", file, detail))
    graph.edges.append(Edge(id, target, str(entry.get("role", ""))))
