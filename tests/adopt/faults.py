"""Adapters with one known fault each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .adapter_folders import (
    ELSEWHERE,
    TINY,
    WIDE,
    Machine,
    P,
    cached,
    config,
    lora,
    snapshot,
    write,
)


def duplicates(machine: Machine) -> None:
    tensors = lora(TINY, machine.next_seed())
    first = machine.add(write(machine.root / "dup" / "first", tensors, config()))
    machine.add(
        Path(shutil.copytree(first, machine.root / "dup" / "backup" / "first")), "duplicate"
    )
    backwards = dict(reversed(tensors.items()))
    folder = machine.root / "dup" / "saved" / "again"
    machine.add(write(folder, backwards, config(), note="saved again"), "duplicate")
    folder = machine.root / "dup" / "other" / "alpha"
    machine.add(write(folder, tensors, config(lora_alpha=64)), "duplicate")


def cached_revisions(machine: Machine) -> None:
    """Two revisions of one repository with the same weights: `main` is the one to take."""
    tensors = lora(TINY, machine.next_seed())
    old, new = ("0" * 40, "f" * 40)
    for revision in (old, new):
        folder = snapshot(machine.cache, "acme/revised", revision)
        cached(write(folder, tensors, config()))
        machine.add(folder, *(["duplicate"] if revision == old else []))
    refs = machine.cache / "models--acme--revised" / "refs"
    refs.mkdir()
    (refs / "main").write_text(new)


def without_effect(machine: Machine) -> None:
    tensors = lora(TINY, machine.next_seed())
    none = {n: 0 * t if "lora_B" in n else t for n, t in tensors.items()}
    machine.add(write(machine.root / "untrained", none, config()), "no-op")
    minus = {n: -0.0 * np.abs(t) if "lora_A" in n else t for n, t in tensors.items()}
    machine.add(write(machine.root / "untrained-minus", minus, config()), "no-op")
    half = {n: 0 * t if "lora_B" in n and "layers.1" in n else t for n, t in tensors.items()}
    machine.add(write(machine.root / "half-trained", half, config()), "partial-no-op")


def wrong_names(machine: Machine) -> None:
    changes: dict[str, Callable[[str], str]] = {
        "bare": lambda n: n.removeprefix(P),
        "doubled-model": lambda n: n.replace("model.layers", "model.model.layers"),
        "data-parallel": lambda n: "module." + n,
        "data-parallel-inside": lambda n: n.replace(P, P + "module."),
        "compiled": lambda n: n.replace(P, P + "_orig_mod."),
        "compiled-outside": lambda n: "_orig_mod." + n,
        "wrapped-twice": lambda n: P + n,
        "state-dict": lambda n: n.replace(".weight", ".default.weight"),
        "half-bare": lambda n: n.removeprefix(P) if "layers.0" in n else n,
    }
    for folder, change in changes.items():
        tensors = {change(n): t for n, t in lora(TINY, machine.next_seed()).items()}
        machine.add(write(machine.root / "names" / folder, tensors, config()), "wrong-prefix")


def broken_values(machine: Machine) -> None:
    for word, value, dtype in (
        ("nan", np.nan, np.float32),
        ("inf", np.inf, np.float16),
        ("minus-inf", -np.inf, np.float64),
    ):
        tensors = {n: t.astype(dtype) for n, t in lora(TINY, machine.next_seed()).items()}
        tensors[f"{P}model.layers.1.mlp.up_proj.lora_B.weight"][3, 1] = value
        machine.add(write(machine.root / "values" / word, tensors, config()), "not-finite")
    prompt = np.full((8, TINY.hidden), np.nan, np.float32)
    settings = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 8, "task_type": "CAUSAL_LM"}
    folder = machine.root / "values" / "prompt"
    machine.add(write(folder, {"prompt_embeddings": prompt}, settings), "not-finite")
    integers = {
        n: (1 + 99 * np.abs(t)).astype(np.int8) for n, t in lora(TINY, machine.next_seed()).items()
    }
    machine.add(write(machine.root / "values" / "int8", integers, config()), "not-float")
    machine.add(write(machine.root / "values" / "empty", {}, config()), "no-tensors")


def wrong_ranks(machine: Machine) -> None:
    q = f"{P}model.layers.0.self_attn.q_proj"
    tensors = lora(TINY, machine.next_seed())
    tensors[f"{q}.lora_B.weight"] = np.ones((TINY.hidden, 4), np.float32)
    machine.add(write(machine.root / "ranks" / "halves", tensors, config()), "rank-mismatch")
    tensors = lora(TINY, machine.next_seed(), 16)
    machine.add(write(machine.root / "ranks" / "said", tensors, config()), "rank-mismatch")
    tensors = lora(TINY, machine.next_seed())
    del tensors[f"{q}.lora_B.weight"]
    machine.add(write(machine.root / "ranks" / "half", tensors, config()), "missing-half")
    tensors = lora(TINY, machine.next_seed(), 520)
    machine.add(write(machine.root / "ranks" / "high", tensors, config(rank=520)), "high-rank")


def damaged(machine: Machine) -> None:
    for word, spoil in {
        "cut": lambda raw: raw[: len(raw) // 2],
        "cut-header": lambda raw: raw[:100],
        "nothing": lambda raw: b"",
        "longer": lambda raw: raw + b"\0",
        "page-of-html": lambda raw: b"<!doctype html><title>404</title>" + bytes(64),
        "lfs": lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    }.items():
        tensors = lora(TINY, machine.next_seed())
        folder = write(machine.root / "damaged" / word, tensors, config())
        file = folder / "adapter_model.safetensors"
        file.write_bytes(spoil(file.read_bytes()))
        machine.add(folder, "damaged-weights")


def files(machine: Machine) -> None:
    root = machine.root / "files"
    for word in ("adapter_model.bin", "adapter_model.pt"):
        folder = write(root / word.replace(".", "-"), lora(TINY, machine.next_seed()), config())
        (folder / "adapter_model.safetensors").rename(folder / word)
        machine.add(folder, "pickle")
    both = write(root / "both", lora(TINY, machine.next_seed()), config())
    (both / "adapter_model.bin").write_bytes(b"\x80\x04")
    machine.add(both)
    folder = write(root / "weights-only", lora(TINY, machine.next_seed()), config())
    (folder / "adapter_config.json").unlink()
    machine.add(folder, "no-config")
    folder = write(root / "config-only", lora(TINY, machine.next_seed()), config())
    (folder / "adapter_model.safetensors").unlink()
    machine.add(folder, "no-weights")
    folder = write(root / "linked", lora(TINY, machine.next_seed()), config())
    (folder / "adapter_model.safetensors").rename(machine.root / "moved.safetensors")
    (folder / "adapter_model.safetensors").symlink_to(machine.root / "moved.safetensors")
    machine.add(folder, "link")
    folder = snapshot(machine.cache, "acme/gone", "cd" * 20)
    cached(write(folder, lora(TINY, machine.next_seed()), config()))
    (folder / "adapter_model.safetensors").resolve().unlink()
    machine.add(folder, "broken-link")


def configurations(machine: Machine) -> None:
    good = json.dumps(config())
    for word, text in {
        "cut": good[:50],
        "twice": good.replace('"bias"', '"r": 9, "bias"'),
        "list": "[1, 2]",
        "nan": good.replace("0.0", "NaN"),
        "no-method": good.replace('"peft_type"', '"peft"'),
        "text-rank": good.replace('"r": 8', '"r": "8"'),
        "bool-rank": good.replace('"r": 8', '"r": true'),
    }.items():
        folder = machine.root / "configurations" / word
        machine.add(write(folder, lora(TINY, machine.next_seed()), text), "malformed-config")


def dangerous(machine: Machine) -> None:
    """What only the registry's own gates look at."""
    for word, options in {
        "code": {"auto_mapping": {"base_model_class": "X", "parent_library": "evil.module"}},
        "slow": {"target_modules": "(a|a)*b"},
        "dropped": {"target_modules": ["q_proj", "k_proj", "v_proj"]},
    }.items():
        folder = machine.root / "dangerous" / word
        machine.add(write(folder, lora(TINY, machine.next_seed()), config(**options)), "refused")


def other_bases(machine: Machine) -> None:
    root = machine.root / "bases"
    tensors = lora(ELSEWHERE, machine.next_seed())
    machine.add(write(root / "elsewhere", tensors, config("acme/elsewhere")), "no-base")
    tensors = lora(TINY, machine.next_seed())
    strange = tensors.pop(f"{P}model.layers.1.mlp.up_proj.lora_A.weight")
    tensors[f"{P}model.layers.7.mlp.up_proj.lora_A.weight"] = strange
    other = tensors.pop(f"{P}model.layers.1.mlp.up_proj.lora_B.weight")
    tensors[f"{P}model.layers.7.mlp.up_proj.lora_B.weight"] = other
    machine.add(write(root / "one-layer-more", tensors, config()), "no-module")
    tensors = lora(TINY, machine.next_seed())
    tensors[f"{P}model.layers.0.mlp.down_proj.lora_A.weight"] = np.ones((8, 100), np.float32)
    machine.add(write(root / "one-shape", tensors, config()), "no-module")
    tensors = lora(WIDE, machine.next_seed())
    machine.add(write(root / "doubtful", tensors, config("acme/mistral")), "doubtful-base")
    no_hint = config("/home/somebody/model")
    machine.add(
        write(root / "no-hint", lora(WIDE, machine.next_seed()), no_hint), base="wide-llama"
    )


def checkpoints(machine: Machine) -> None:
    """Two trainings without a result: one knows its best step."""
    for word, best in (("stopped", None), ("evaluated", "out/checkpoint-20")):
        kept = 20 if best else 100
        for step in (3, 20, 100):
            folder = machine.root / word / f"checkpoint-{step}"
            write(folder, lora(TINY, machine.next_seed()), config())
            state = {"best_model_checkpoint": best}
            (folder / "trainer_state.json").write_text(json.dumps(state))
            faults = () if step == kept else ("checkpoint",)
            machine.add(folder, *faults, notes=() if faults else ("checkpoint",))


FAULTS = (
    duplicates, cached_revisions, without_effect, wrong_names, broken_values, wrong_ranks, damaged,
    files, configurations, dangerous, other_bases, checkpoints,
)  # fmt: skip
