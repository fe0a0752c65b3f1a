"""Rows of many adapters that join and leave: each gets what PEFT gives it alone."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterhub.cli.output import TerminalProgress
from adapterhub.generate import Sampling
from adapterhub.plugins import open_registry
from adapterhub.protocols import ServeSettings
from adapterhub_transformers import lane, mixed_lora
from adapterhub_transformers.engine import load_service
from adapterhub_transformers.job import Job
from adapterhub_transformers.lane import ContinuousLane, StaticLane

METHODS = {"a": "lora", "b": "lora", "c": "rslora", "d": "dora", "e": "ia3", "f": "prefix",
           "g": "prompt"}  # fmt: skip
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "and",
    "then",
    "it",
    "sleeps",
    "for",
    "a",
    "while",
]


@pytest.fixture
def versions(commit_adapter: Any) -> dict[str, Any]:
    made = {name: commit_adapter(name, m, seed=ord(name)) for name, m in METHODS.items()}
    return {"tiny": None, **made}


@pytest.fixture
def service(tiny_base: Any, versions: dict[str, Any]) -> Iterator[Any]:
    found = load_service(ServeSettings("tiny", max_resident=5), TerminalProgress())
    yield found
    found.worker.stop()


class Peft:
    """PEFT's own answers, one prompt at a time."""

    def __init__(self, base: Path, versions: dict[str, Any]) -> None:
        self.base, self.versions = base, versions
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        self.models: dict[str, Any] = {}

    def model(self, name: str) -> Any:
        if name not in self.models:
            model = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32)
            if self.versions[name] is not None:
                path = open_registry().path(self.versions[name])
                model = peft.PeftModel.from_pretrained(model, path)
            self.models[name] = model.eval()
        return self.models[name]

    def answer(self, name: str, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
        """Greedy tokens and their log-probabilities."""
        out = self.model(name).generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=count,
            do_sample=False,
            output_scores=True,
            return_dict_in_generate=True,
        )
        tokens = out.sequences[0, len(prompt) :].tolist()
        scores = [torch.log_softmax(step[0].double(), -1) for step in out.scores]
        return tokens, [float(s[t]) for s, t in zip(scores, tokens, strict=True)]


@pytest.mark.parametrize(("seed", "chunk", "together"), [(1, 512, True), (2, 24, False)])
def test_random_mixes_are_answered_as_by_peft(
    service: Any, versions: dict[str, Any], tiny_base_dir: Path, monkeypatch: Any,
    seed: int, chunk: int, together: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(lane, "_CHUNK", chunk)
    # Small mixes are computed all at once, larger ones by adapter.
    monkeypatch.setattr(mixed_lora, "_ALL_AT_ONCE", 32 * 1024 if together else 0)
    pick = random.Random(seed)
    wanted = Peft(tiny_base_dir, versions)
    asked = []
    for _ in range(40):
        name = pick.choice(list(versions))
        text = " ".join(pick.choices(WORDS, k=pick.randint(1, 14)))
        tokens = wanted.tokenizer(text)["input_ids"]
        asked.append((name, tokens, pick.randint(1, 24)))
    jobs = []
    for name, tokens, count in asked:
        jobs.append(Job(versions[name], tokens, Sampling(count, logprobs=0)))
        service.worker.submit(jobs[-1])
        time.sleep(pick.choice((0, 0, 0.005)))
    wait([job.done for job in jobs], timeout=60)
    for (name, tokens, count), job in zip(asked, jobs, strict=True):
        answer = job.done.result(timeout=0)
        expected, scores = wanted.answer(name, tokens, count)
        assert answer.tokens == expected, name
        assert [score.logprob for score in answer.scores] == pytest.approx(scores, abs=1e-4)


def test_plain_lora_and_soft_prompts_share_the_lane_of_the_base(
    service: Any, versions: dict[str, Any]
) -> None:
    common = service.worker.adapters.lanes[0]
    for name in ("a", "c", "f", "g"):
        assert service.worker.adapters.get(versions[name], lambda digest: False).lane is common
    own = service.worker.adapters.get(versions["d"], lambda digest: False).lane
    assert isinstance(own, ContinuousLane)
    assert own is not common


def test_a_row_whose_adapter_overflows_disturbs_no_other(
    service: Any, versions: dict[str, Any], tiny_base_dir: Path
) -> None:
    adapters = service.worker.adapters
    columns = adapters.get(versions["b"], lambda digest: False).columns
    for site in adapters._mixed._sites.values():
        if site.a is not None:
            site.a[columns.begin : columns.end] = float("inf")
    tokens = service.tokens_of_text("the quick")
    names = ["tiny", "b", "a", "b", "c"]
    jobs = [Job(versions[name], tokens, Sampling(8)) for name in names]
    for job in jobs:
        service.worker.submit(job)
    wait([job.done for job in jobs], timeout=30)
    wanted = Peft(tiny_base_dir, versions)
    for name, job in zip(names, jobs, strict=True):
        if name == "b":
            with pytest.raises(ArithmeticError, match="overflow"):
                job.done.result(timeout=0)
        else:
            assert job.done.result(timeout=0).tokens == wanted.answer(name, tokens, 8)[0]


def test_a_row_that_joins_later_ends_before_a_long_one(service: Any) -> None:
    tokens = service.tokens_of_text("the quick")
    long, short = Job(None, tokens, Sampling(300)), Job(None, tokens, Sampling(2))
    begun: list[str] = []
    long.on_piece = lambda text, scores: begun.append(text)
    service.worker.submit(long)
    while not begun:
        time.sleep(0.001)
    service.worker.submit(short)
    assert short.done.result(timeout=30).finish == "length"
    assert not long.done.done()
    long.abandon()


def test_a_base_with_another_memory_is_answered_in_static_batches(
    tiny_base: Any, versions: dict[str, Any], tiny_base_dir: Path, monkeypatch: Any, capsys: Any
) -> None:
    from transformers import LlamaConfig

    monkeypatch.setattr(LlamaConfig, "sliding_window", 64, raising=False)
    service = load_service(ServeSettings("tiny"), TerminalProgress())
    try:
        assert "it looks back 64 tokens only" in capsys.readouterr().err
        assert isinstance(service.worker.adapters.lanes[0], StaticLane)
        tokens = service.tokens_of_text("the quick")
        jobs = [Job(versions[name], tokens, Sampling(8)) for name in ("tiny", "a", "d", "tiny")]
        for job in jobs:
            service.worker.submit(job)
        wanted = Peft(tiny_base_dir, versions)
        got = [job.done.result(timeout=30).tokens for job in jobs]
        assert got == [wanted.answer(name, tokens, 8)[0] for name in ("tiny", "a", "d", "tiny")]
    finally:
        service.worker.stop()
