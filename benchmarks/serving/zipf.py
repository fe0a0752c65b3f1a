"""Many versions: traffic that prefers some of them, as users do."""

from __future__ import annotations

import argparse
import random
from typing import Any

from serving import load, servers
from serving.zoo import PAYLOADS, Zoo

ASKED_FOR = 200
RESIDENT = 16
CASE = load.Case(96, 16, 32)


def measure(zoo: Zoo, given: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of one adapter, and of 200 out of all versions with 16 in a batch."""
    many = registered(zoo, given.versions)
    weights = [1 / rank for rank in range(1, ASKED_FOR + 1)]
    found: dict[str, list[float]] = {"zipf one": [], "zipf many": []}
    with servers.running("ours", zoo, given.folder, resident=RESIDENT) as server:
        for turn in range(given.rounds + 1):
            draw = random.Random(turn)
            models = draw.choices(many[:ASKED_FOR], weights, k=CASE.requests)
            one = load.throughput(server.port, ["a0"], CASE, seed=2 * turn)
            value = load.throughput(server.port, models, CASE, seed=2 * turn + 1)
            if turn:
                found["zipf one"].append(one)
                found["zipf many"].append(value)
    return {**found, "zipf versions": len(many)}


def registered(zoo: Zoo, count: int) -> list[str]:
    """Names of so many adapters; each is a version of its own, 8 payloads lie behind them."""
    from adapterhub.plugins import open_registry

    with zoo.here():
        there = {version.name for version in open_registry().versions()}
    names = [f"z{i}" for i in range(count)]
    for i, name in enumerate(names):
        if name not in there:
            zoo.commit(name, i % PAYLOADS)
    return names
