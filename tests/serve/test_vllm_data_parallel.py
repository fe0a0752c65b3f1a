"""A real vLLM with two engines: each adapter is answered by its own one, whatever a client says."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from adapterhub.manifest import BaseLink
from adapterhub.plugins import open_registry
from adapterhub.serve.lifecycle.state import running_servers
from adapterhub_vllm.affinity import rank_of

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]

WIDTH = 576
PROMPT = "The capital of France is"
ASKED = 3


def ranks_of(versions: list[Any]) -> list[int]:
    return [rank_of(version.digest.removeprefix("sha256:"), 2) for version in versions]


@pytest.fixture
def versions(real_base: Any, commit_small: Any) -> list[Any]:
    """Adapters of one module, so many that both engines have some: digests hold a time."""
    registry = open_registry()
    digests = registry.base("smollm2").digests
    link = BaseLink(status="recorded", name="smollm2", digests=digests)
    made: list[Any] = []
    while len(made) < 3 or len(set(ranks_of(made))) < 2:
        name, seed = f"a{len(made)}", len(made)
        made.append(commit_small(registry, name, seed=seed, width=WIDTH, base=link))
    return made


@pytest.fixture
def url(adz_process: Any, versions: list[Any]) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    started = adz_process(
        "serve", "smollm2", "--engine", "vllm", "--data-parallel", "2", "--detach", "--json",
        "--max-context", "128", "--port", port, timeout=600,
    )  # fmt: skip
    assert started.code == 0, started.err
    yield json.loads(started.out)["url"]
    for state in running_servers():
        os.kill(state.pid, signal.SIGTERM)


def ask(url: str, model: str, rank: int) -> str:
    question = {"model": model, "prompt": PROMPT, "max_tokens": 4, "temperature": 0}
    answer = httpx2.post(
        f"{url}/completions",
        json=question,
        headers={"X-data-parallel-rank": str(rank)},
        timeout=200,
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    text: str = answer.json()["choices"][0]["text"]
    return text


def answered(url: str) -> Counter[int]:
    """Requests that ended, by engine."""
    text = httpx2.get(url.replace("/v1", "/metrics"), trust_env=False).text
    counts: Counter[int] = Counter()
    for line in re.findall(r"^vllm:request_success_total\{.*", text, re.MULTILINE):
        engine = re.search(r'engine="(\d+)"', line)
        assert engine is not None
        counts[int(engine[1])] += int(float(line.split()[-1]))
    return counts


def by_peft(base: Path, directory: Path) -> str:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, directory).eval()
    tokens = tokenizer(PROMPT, return_tensors="pt")
    written = model.generate(**tokens, max_new_tokens=4, do_sample=False)
    text: str = tokenizer.decode(
        written[0, tokens["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return text


def test_each_adapter_has_its_engine(url: str, versions: list[Any], real_base_dir: Path) -> None:
    registry = open_registry()
    ranks = ranks_of(versions)
    before = answered(url)
    # A client that names the other engine, or one that is not there.
    jobs = [
        (version.name, (1 - rank, 9, rank)[turn])
        for turn in range(ASKED)
        for version, rank in zip(versions, ranks, strict=True)
    ]
    with ThreadPoolExecutor(len(jobs)) as pool:
        texts = list(pool.map(lambda job: ask(url, *job), jobs))
    expected = Counter(rank for rank in ranks for _ in range(ASKED))
    assert answered(url) - before == expected
    for version in versions:
        own = {text for text, job in zip(texts, jobs, strict=True) if job[0] == version.name}
        assert own == {by_peft(real_base_dir, registry.path(version))}, version.reference
    for _ in range(2):
        ask(url, "smollm2", 9)
    assert sum((answered(url) - before).values()) == len(jobs) + 2
