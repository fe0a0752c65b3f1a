"""The embedded engine against transformers' own static batch and against one by one.

    python benchmarks/embedded.py --home HOME [--base smollm2] [--json]

Requests on four plain LoRA adapters of the registry at HOME, at once and with the same number of
tokens each; the peer is `generate` of PEFT's model of one adapter over a batch of as many rows.
Medians of the rounds; the engine's two ways take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

Ways = dict[str, Callable[[], None]]


@dataclass(frozen=True)
class Result:
    """Tokens a second; ratios are the engine's against the peer of the same run."""

    requests: int
    adapters: int
    prompt_tokens: int
    new_tokens: int
    engine: float
    static_batch_of_one_adapter: float
    one_by_one: float
    against_static: float
    against_one_by_one: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ["ADZ_HOME"] = str(arguments.home)
    result = measure(
        arguments.base,
        arguments.requests,
        arguments.prompt_tokens,
        arguments.new_tokens,
        arguments.rounds,
    )
    if arguments.json:
        print(json.dumps(asdict(result), indent=2))
        return
    print(f"{result.requests} requests on {result.adapters} adapters at once, "
          f"{result.prompt_tokens} tokens in, {result.new_tokens} out")  # fmt: skip
    print(f"embedded engine                 {result.engine:6.1f} tok/s")
    print(f"static batch of one adapter     {result.static_batch_of_one_adapter:6.1f} tok/s"
          f"   engine {result.against_static:.2f}x")  # fmt: skip
    print(f"engine, one by one              {result.one_by_one:6.1f} tok/s"
          f"   engine {result.against_one_by_one:.2f}x")  # fmt: skip


def measure(base: str, requests: int, prompt: int, new: int, rounds: int) -> Result:
    """Run the engine at once and one by one, then the peer."""
    from adapterhub.cli.output import TerminalProgress
    from adapterhub.models import load_adapter
    from adapterhub.plugins import open_registry
    from adapterhub.protocols import ServeSettings
    from adapterhub_transformers.engine import load_service

    registry = open_registry()
    versions = [v for v in registry.versions() if v.manifest.method in ("lora", "rslora")][:4]
    service = load_service(ServeSettings(base, dtype="float32"), TerminalProgress())
    # All write the same number of tokens.
    service.worker.adapters.stop_ids = frozenset()
    draw = random.Random(0)
    last = len(service.tokenizer) - 100
    rows = [[draw.randrange(100, last) for _ in range(prompt)] for _ in range(requests)]
    engine: Ways = {
        "engine": lambda: _ask(service, versions, rows, new, together=True),
        "single": lambda: _ask(service, versions, rows, new, together=False),
    }
    seconds = _take_turns(engine, rounds)
    # Two threads that compute keep more OpenMP threads than there are CPUs, and slow each other
    # down even in turns: the peer computes in this one only when the engine's is gone.
    service.worker.stop()
    model = service.worker.adapters._model
    peer = load_adapter(model, versions[0], registry.path(versions[0]))
    prompts = torch.tensor(rows)
    seconds |= _take_turns({"static": lambda: _static(peer, prompts, new)}, rounds)
    speed = {name: requests * new / statistics.median(taken) for name, taken in seconds.items()}
    return Result(
        requests, len({v.digest for v in versions}), prompt, new,
        speed["engine"], speed["static"], speed["single"],
        speed["engine"] / speed["static"], speed["engine"] / speed["single"],
    )  # fmt: skip


def _take_turns(ways: Ways, rounds: int) -> dict[str, list[float]]:
    """Seconds of each, after a round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def _ask(
    service: Any, versions: list[Any], rows: list[list[int]], new: int, *, together: bool
) -> None:
    from adapterhub.generate import Sampling
    from adapterhub_transformers.job import Job

    jobs = []
    for place, tokens in enumerate(rows):
        jobs.append(Job(versions[place % len(versions)], tokens, Sampling(new)))
        service.worker.submit(jobs[-1])
        if not together:
            jobs[-1].done.result()
    for job in jobs:
        job.done.result()


def _static(model: Any, prompts: torch.Tensor, new: int) -> None:
    model.generate(
        input_ids=prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
    )


if __name__ == "__main__":
    main()
