"""One real vLLM with a real base, for every test in this folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from live_server import BOTH, KEY, RESIDENT, START_SECONDS, Server, commit, write_adapter
from telltale import Teller


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An `ADZ_HOME` for this folder."""
    from adapterhub.plugins import load_plugins

    folder = tmp_path_factory.mktemp("vllm-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADZ_HOME", str(folder))
        load_plugins.cache_clear()
        yield folder
    load_plugins.cache_clear()


@pytest.fixture(scope="package")
def folders(real_base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The adapters as PEFT wrote them, by the version that they become."""
    parent = tmp_path_factory.mktemp("adapters")
    few = ["q_proj", "v_proj", "down_proj"]
    options: dict[str, dict[str, Any]] = {
        "wide@1": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
        "few@1": {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": few,
            "use_rslora": True,
            "rank_pattern": {"down_proj": 8},
        },
        "few@2": {"r": 8, "lora_alpha": 16, "target_modules": few},
        "late@1": {"r": 8, "lora_alpha": 16, "target_modules": ["o_proj", "gate_proj"]},
        "high@1": {"r": 24, "lora_alpha": 24, "target_modules": few},
        # Of rank 9, so that the server's 16 hold it; in few layers, so that it is soon converted.
        "odd@1": {
            "kind": "LoHa",
            "r": 3,
            "alpha": 3,
            "target_modules": r".*layers\.[0-2]\.(self_attn\.q_proj|mlp\.down_proj)",
        },
        "dora@1": {"r": 8, "lora_alpha": 16, "target_modules": few, "use_dora": True},
        "soft@1": {"kind": "PromptTuning", "num_virtual_tokens": 16, "task_type": "CAUSAL_LM"},
        "soft@2": {"kind": "PromptTuning", "num_virtual_tokens": 5, "task_type": "CAUSAL_LM"},
        "ptune@1": {
            "kind": "PromptEncoder",
            "num_virtual_tokens": 8,
            "encoder_hidden_size": 64,
            "task_type": "CAUSAL_LM",
        },
        "words@1": {"r": 8, "lora_alpha": 16, "target_modules": ["embed_tokens", "q_proj"]},
    }
    return {
        reference: write_adapter(real_base_dir, parent / reference, seed, **given)
        for seed, (reference, given) in enumerate(options.items(), start=1)
    }


@pytest.fixture(scope="package")
def server(home: Path, real_base_dir: Path, folders: dict[str, Path]) -> Iterator[Server]:
    """`adz serve` with two adapters committed, on a free port and behind a key."""
    from adapterhub.cli import main

    assert main(["base", "add", "smollm2", str(real_base_dir)]) == 0
    commit("wide", folders["wide@1"])
    commit("few", folders["few@1"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "ADZ_HOME": str(home),
        "ADZ_SERVE_API_KEY": KEY,
        "VLLM_CPU_KVCACHE_SPACE": "1",
    }
    # Some tests need an adapter that is too large.
    arguments = ("--port", str(port), "--json", "--max-resident", str(RESIDENT), "--max-rank", "16",
                 "--", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "adapterhub.cli", "serve", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = _kill_later(process, START_SECONDS)
    assert process.stdout is not None
    assert process.stderr is not None
    announced = ""
    for line in iter(process.stdout.readline, ""):
        announced += line
        if line == "}\n":
            break
    watchdog.cancel()
    if not announced:
        pytest.fail(f"adz serve ended: {process.stderr.read()}")
    result = json.loads(announced)
    assert result["url"] == f"http://127.0.0.1:{port}/v1"
    yield Server(result["url"], home, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=90) == 0, process.stderr.read()
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


def _kill_later(process: subprocess.Popen[str], seconds: float) -> Any:
    import threading

    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    return timer


@pytest.fixture(scope="package")
def expected(real_base_dir: Path, folders: dict[str, Path]) -> Any:
    """Log-probabilities by PEFT, for a version or the base, of given tokens after a prompt."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    loaded: dict[str, Any] = {}

    def compute(reference: str, prompt: list[int], tokens: list[int]) -> list[float]:
        if reference not in loaded:
            model = AutoModelForCausalLM.from_pretrained(real_base_dir, dtype=torch.float32)
            if reference in folders:
                model = PeftModel.from_pretrained(model, folders[reference])
            elif reference == "both@1":
                add_deltas(model, folders)
            loaded[reference] = model.eval()
        with torch.no_grad():
            logits = loaded[reference](torch.tensor([prompt + tokens])).logits[0]
        # A soft prompt has rows of its own before them.
        logits = logits[-len(prompt + tokens) :]
        scores = logits[len(prompt) - 1 : -1].log_softmax(-1)
        return [float(scores[place, token]) for place, token in enumerate(tokens)]

    return compute


def add_deltas(model: Any, folders: dict[str, Path]) -> None:
    """Add the weighted updates of `BOTH` to the weights themselves, as PEFT computes each."""
    import torch
    from peft import PeftModel

    for reference, weight in BOTH.items():
        adapted = PeftModel.from_pretrained(model, folders[reference])
        deltas = {
            name: layer.get_delta_weight("default")
            for name, layer in adapted.base_model.model.named_modules()
            if hasattr(layer, "get_delta_weight")
        }
        model = adapted.unload()
        with torch.no_grad():
            for name, delta in deltas.items():
                model.get_submodule(name).weight += weight * delta


@pytest.fixture(scope="package")
def teller(real_base_dir: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Teller:
    """Commits versions that each write one word of their own, whatever they are asked."""
    return Teller(real_base_dir, tmp_path_factory.mktemp("telltale"))
