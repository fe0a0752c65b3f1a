"""Versions that are new to a running server: their first token, and an alias that moves."""

from __future__ import annotations

import argparse
import time
from typing import Any

from serving import load, servers
from serving.zoo import PAYLOADS, Zoo

TIMES = 9


def cold(zoo: Zoo, given: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds to the first token of a version never asked for, and of the same again."""
    found: dict[str, list[float]] = {"cold first": [], "cold again": []}
    with servers.running("ours", zoo, given.folder) as server:
        load.first_token_seconds(server.port, "a0", seed=0)
        for turn in range(TIMES):
            name = zoo.commit("cold", turn % PAYLOADS).reference
            first, _ = load.first_token_seconds(server.port, name, seed=10 * turn)
            again = [
                load.first_token_seconds(server.port, name, seed=10 * turn + i)[0]
                for i in range(1, 4)
            ]
            found["cold first"].append(1000 * first)
            found["cold again"].append(1000 * sorted(again)[1])
    return found


def flip(zoo: Zoo, given: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds from `adz tag` having moved an alias to the end of the first answer of one
    token by the new version, which was never asked for before."""
    from adapterhub.plugins import open_registry

    found: list[float] = []
    with zoo.here(), servers.running("ours", zoo, given.folder) as server:
        registry = open_registry()
        old = zoo.commit("flip", 0)
        registry.tag(old.reference, "prod")
        load.first_token_seconds(server.port, "flip@prod", seed=0)
        for turn in range(TIMES):
            new = zoo.commit("flip", (turn + 1) % PAYLOADS)
            registry.tag(new.reference, "prod")
            begun = time.perf_counter()
            answered = ""
            while answered != new.reference:
                _, answered = load.first_token_seconds(server.port, "flip@prod", seed=turn + 1)
            found.append(1000 * (time.perf_counter() - begun))
    return {"flip": found}
