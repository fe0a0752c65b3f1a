"""What our plugin costs: at start, and on requests to the base."""

from __future__ import annotations

import argparse
from typing import Any

from serving import load, servers
from serving.zoo import BASE, Zoo

PAIRS = 7


def start_times(zoo: Zoo, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds from the command to an answering server, ours and plain vLLM in turns."""
    found: dict[str, list[float]] = {}
    for turn in range(given.rounds + 1):
        for kind in ("ours", "tuned"):
            with servers.running(kind, zoo, given.folder) as server:
                # The first start of each reads everything from the disk.
                if turn:
                    found.setdefault(f"start {kind}", []).append(server.started)
    return found


def plugin_cost(zoo: Zoo, given: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of requests to the base with and without our plugin, in turns."""
    found: dict[str, list[float]] = {}
    with (
        servers.running("ours", zoo, given.folder) as ours,
        servers.running("tuned", zoo, given.folder) as tuned,
    ):
        for turn in range(max(given.rounds, PAIRS) + 1):
            for server in (ours, tuned) if turn % 2 else (tuned, ours):
                value = load.throughput(server.port, [BASE], load.DECODE, seed=turn)
                if turn:
                    found.setdefault(f"plugin {server.kind}", []).append(value)
    return found
