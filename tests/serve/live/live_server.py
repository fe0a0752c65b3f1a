"""A client of one real `adz serve`, and the adapters that it is given."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

KEY = "a-key-for-the-tests"
PROMPTS = (
    "The capital of France is",
    "def add(a, b):\n    return",
    "Water boils at",
    "Once upon a time there was a",
    "SELECT name FROM",
    "The opposite of hot is",
)
# Two engines add up in different orders: float32 over 30 layers.
TOLERANCE = 2e-3
START_SECONDS = 600
# So many adapters in one batch, and four times as many in memory.
RESIDENT = 2
ROOM = 8
# What `adz merge` makes one adapter of: other ranks, other scales, one with rsLoRA.
BOTH = {"few@1": 0.7, "few@2": 0.4}


@dataclass(frozen=True)
class Asked:
    """One answer: who answered, and the log-probability of each token it wrote."""

    model: str
    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]


@dataclass
class Server:
    """A running `adz serve`, and the models that it should agree with."""

    url: str
    home: Path
    process: subprocess.Popen[str]

    def request(self, path: str, body: Any = None, key: str | None = KEY) -> tuple[int, Any]:
        """Status and JSON of a request, outside /v1 where `path` begins with `//`."""
        url = self.url.removesuffix("/v1") + path[1:] if path[:2] == "//" else self.url + path
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                text = response.read().decode()
                return response.status, json.loads(text) if text.startswith("{") else text
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            return error.code, json.loads(text) if text.startswith("{") else text

    def processes(self) -> list[int]:
        """Its process ids: adz, the API server, the engine and its workers."""
        found, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                waiting += map(int, task.read_text().split())
        return found

    def memory(self) -> int:
        """Bytes of its own that its processes hold: anonymous memory, not the files that the
        system keeps mapped for them."""
        pattern = re.compile(r"^RssAnon:\s+(\d+) kB", re.MULTILINE)
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in self.processes()]
        return sum(int(match[1]) * 1024 for text in texts if (match := pattern.search(text)))

    def ask_all(self, questions: list[tuple[str, str]]) -> list[Asked]:
        """Every (model, prompt) in flight at once, through the official client."""
        return asyncio.run(_ask_all(self.url, questions))

    def adz(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `adz` on the server's home."""
        return subprocess.run(
            [sys.executable, "-m", "adapterhub.cli", *arguments],
            env={**os.environ, "ADZ_HOME": str(self.home)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


async def _ask_all(url: str, questions: list[tuple[str, str]]) -> list[Asked]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=url, api_key=KEY, timeout=300, max_retries=0) as client:

        async def ask(model: str, prompt: str) -> Asked:
            done = await client.completions.create(
                model=model,
                prompt=prompt,
                max_tokens=6,
                temperature=0,
                logprobs=1,
                extra_body={"return_token_ids": True},
            )
            choice: Any = done.choices[0]
            return Asked(
                done.model,
                choice.prompt_token_ids,
                choice.token_ids,
                choice.logprobs.token_logprobs,
            )

        return await asyncio.gather(*(ask(model, prompt) for model, prompt in questions))


def write_adapter(base: Path, folder: Path, seed: int, kind: str = "Lora", **options: Any) -> Path:
    """An adapter with random factors, large enough to change what the base writes. kind: of
    PEFT's configurations."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(seed)
    adapted: Any = peft.get_peft_model(model, getattr(peft, f"{kind}Config")(**options))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            for factor, size in (("lora_", 0.03), ("hada_", 0.3)):
                if factor in name:
                    parameter.copy_(size * torch.randn_like(parameter))
    # What the base holds is not the adapter's, also where it adapts the embedding.
    adapted.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    return folder


def commit(name: str, folder: Path, method: str = "lora", *, known_base: bool = True) -> Any:
    from adapterhub.manifest import BaseLink, Manifest
    from adapterhub.plugins import open_registry

    registry = open_registry()
    digests = registry.base("smollm2").digests
    link = (
        BaseLink(status="recorded", name="smollm2", digests=digests)
        if known_base
        else BaseLink(status="unknown")
    )
    rank = json.loads((folder / "adapter_config.json").read_text()).get("r")
    manifest = Manifest(
        name=name,
        method=method,
        made_by="train" if known_base else "import",
        base=link,
        prompt_format="plain",
        adapter={"rank": rank} if rank else {},
    )
    return registry.commit(manifest, folder)


def assert_agrees(answer: Asked, reference: str, expected: Any) -> None:
    assert answer.model == reference
    wanted = expected(reference, answer.prompt, answer.tokens)
    assert answer.logprobs == pytest.approx(wanted, abs=TOLERANCE)


def turn(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
