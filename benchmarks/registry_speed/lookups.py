"""How long pages, filters and references take in a large registry, in process and warm."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

from adapterhub_registry.store import LocalRegistry
from registry_speed.timing import seconds

PAGE = 50
WARM = 10
Operations = list[Callable[[], Any]]


def measure(registry: LocalRegistry, names: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call by what it does; every call asks for something else.

    A filter is a page of those that match; its first page, as `adz ls --base qwen` asks for it.
    """
    return {
        label: _warm([make(index) for index in range(rounds + WARM)])
        for label, make in operations(registry, names).items()
    }


def operations(
    registry: LocalRegistry, names: list[str]
) -> dict[str, Callable[[int], Callable[[], Any]]]:
    """What is measured: a label, and a function that makes the n-th call."""
    chosen = random.Random(0).choices(names, k=1000)
    page = functools.partial(registry.listing, limit=PAGE)

    def name(index: int) -> str:
        return chosen[index % len(chosen)]

    def digest(index: int) -> str:
        return registry.resolve(name(index)).digest

    return {
        "page: the first 50 by name": lambda i: page,
        "page: 50 in the middle": lambda i: functools.partial(page, offset=len(names) // 2),
        "page: the 50 newest": lambda i: functools.partial(page, sort="created", reverse=True),
        "filter: base": lambda i: functools.partial(page, base=f"base-{i % 5}"),
        "filter: alias": lambda i: functools.partial(page, alias="prod"),
        "filter: method": lambda i: functools.partial(page, method="dora"),
        "filter: names that begin so": lambda i: functools.partial(page, name=f"team-{i % 40}/*"),
        "filter: metric below a bound": lambda i: functools.partial(
            page, metric=f"holdout_loss<{0.2 + i % 9 / 10}"
        ),
        "filter: metric, sorted by it": lambda i: functools.partial(
            page, metric="holdout_loss", sort="metric"
        ),
        "filter: base and method, newest": lambda i: functools.partial(
            page, base=f"base-{i % 5}", method="dora", sort="created", reverse=True
        ),
        "resolve: name": lambda i: functools.partial(registry.resolve, name(i)),
        "resolve: number": lambda i: functools.partial(registry.resolve, f"{name(i)}@1"),
        "resolve: alias": lambda i: functools.partial(registry.resolve, f"{name(i)}@prod"),
        "resolve: digest": lambda i: functools.partial(registry.resolve, f"{name(i)}@{digest(i)}"),
    }


def _warm(calls: Operations) -> list[float]:
    for call in calls[:WARM]:
        call()
    return [seconds(call) for call in calls[WARM:]]
