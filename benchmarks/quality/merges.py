"""The merges that are compared: rules in their spaces, weights and densities; and their scores."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from adapterhub import Hub, specs
from adapterhub.errors import AdzError
from adapterhub.merge.plan import choose
from adapterhub.merge.recipe import MergeRecipe
from adapterhub.plugins import load_plugins
from quality.scores import Cells, Points, Scorer


@dataclass(frozen=True)
class Merge:
    """One merge, with all that its score depends on but the adapters."""

    rule: str
    space: str
    weights: tuple[float, ...]
    density: float | None
    rank: str
    scale: float
    compat: str | None = None
    own: tuple[tuple[str, float], ...] = ()
    """The options of the rule's own."""

    @property
    def label(self) -> str:
        """`ties in knots`, `ties in factors as peft`."""
        return f"{self.rule} in {self.space}" + (f" as {self.compat}" if self.compat else "")

    @property
    def settings(self) -> str:
        """The label and the numbers, for a line of progress."""
        return f"{self.label} {self.weights} x {self.scale:g}, density {self.density}"

    @property
    def described(self) -> specs.MergeRule:
        """What the rule's plugin says of it."""
        rule = load_plugins().get(specs.MergeRule, self.rule)
        found = rule if self.compat is None else rule.as_peer(self.compat)
        if found is None:
            raise LookupError(self.label)
        return found

    def options(self) -> dict[str, Any]:
        """Keyword arguments for `Hub.merge`."""
        given = asdict(self)
        given["options"] = dict(given.pop("own"))
        if not self.described.weighted:
            del given["weights"]
        return {name: value for name, value in given.items() if value is not None}


def defaults(adapters: Sequence[str]) -> Iterator[Merge]:
    """Every installed rule in each of its spaces, and as each peer computes it, with all else as
    `adz merge` chooses it for the adapters."""
    for rule in load_plugins().components(specs.MergeRule).values():
        if rule.kind == "pairwise" and len(adapters) != 2:
            continue
        for peer in (None, *(variant.peer for variant in rule.compat)):
            described = rule if peer is None else rule.as_peer(peer)
            for space in described.spaces if described else ():
                yield default_of(adapters, rule.name, space, peer)


def default_of(
    adapters: Sequence[str], rule: str, space: str | None, compat: str | None = None
) -> Merge:
    """The merge that `adz merge` plans when nothing else is given."""
    recipe = MergeRecipe(adapters=tuple(adapters), rule=rule, space=space, compat=compat)
    choice = choose(recipe, rule)
    own = choice.options.keys() - {"density", "seed"}
    return Merge(
        rule=rule,
        space=choice.space.name,
        weights=tuple(round(weight, 4) for weight in choice.weights),
        density=choice.options.get("density"),
        rank=choice.rule.default_rank,
        scale=choice.scale,
        compat=compat,
        own=tuple((name, choice.options[name]) for name in sorted(own)),
    )


@dataclass(frozen=True)
class Bench:
    """Scores merges of the adapters of one seed, and keeps the scores."""

    hub: Hub
    cells: Cells
    scorer: Scorer
    merged: Path
    """Where the last merged adapter lies."""
    _made: list[tuple[Merge, int]] = field(default_factory=list)

    def adapters(self, seed: int) -> list[str]:
        """The names of the adapters of a seed, in the order of the weights."""
        return [f"{task.name}-{seed}" for task in self.scorer.tasks]

    def known(self, merge: Merge, seed: int, part: str, rows: int) -> Points | None:
        """Points that were scored before, or None."""
        return self.cells.get(self._key(merge, seed, part, rows))

    def points(self, merge: Merge, seed: int, part: str, rows: int) -> Points | None:
        """Points of the merged adapter; None where the merge is refused."""
        known = self.known(merge, seed, part, rows)
        if known is not None:
            return known
        # The scale multiplies the result: scales of one merge share it.
        unscaled = replace(merge, scale=1.0)
        if not self._made or self._made[-1] != (unscaled, seed):
            self._made[:] = [(unscaled, seed)]
            shutil.rmtree(self.merged, ignore_errors=True)
            try:
                self.hub.merge(*self.adapters(seed), out=self.merged, **unscaled.options())
            except AdzError as error:
                self._made.clear()
                print(f"{merge.label}: {error}", flush=True)
                return None
        points = self.scorer.points(self.merged, part, rows, scale=merge.scale)
        self.cells.put(self._key(merge, seed, part, rows), points)
        return points

    def _key(self, merge: Merge, seed: int, part: str, rows: int) -> dict[str, Any]:
        digests = [self.hub.resolve(name).digest for name in self.adapters(seed)]
        return {"merge": asdict(merge), "adapters": digests, "part": part, "rows": rows}

    def single(self, seed: int, part: str, rows: int) -> Points:
        """Points of each task's own adapter on its own task: what routing answers."""
        return {
            task.name: self._one(f"{task.name}-{seed}", part, rows, task.name)[task.name]
            for task in self.scorer.tasks
        }

    def adapter(self, name: str, part: str, rows: int) -> Points:
        """Points of one adapter on every task."""
        return self._one(name, part, rows, None)

    def base(self, part: str, rows: int, shots: int) -> Points:
        """Points of the base alone, after `shots` examples."""
        key = {"base": True, "shots": shots, "part": part, "rows": rows}
        known = self.cells.get(key)
        if known is None:
            known = self.scorer.points(None, part, rows, shots=shots)
            self.cells.put(key, known)
        return known

    def _one(self, name: str, part: str, rows: int, task: str | None) -> Points:
        digest = self.hub.resolve(name).digest
        key = {"adapter": digest, "task": task, "part": part, "rows": rows}
        known = self.cells.get(key)
        if known is None:
            only = [task] if task else None
            known = self.scorer.points(self.hub.path(name), part, rows, only=only)
            self.cells.put(key, known)
        return known
