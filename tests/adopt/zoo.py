"""A lived-in machine: hundreds of adapters of many kinds, some with one known fault each.

`expected` says for every directory which faults a survey must note, worked out from what was
seeded and not from what is looked for.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

P = "base_model.model."
Tensors = dict[str, np.ndarray]


@dataclass(frozen=True)
class Shape:
    """A base's modules: name -> (outputs, inputs)."""

    hidden: int
    inner: int
    layers: int
    keys: int

    def modules(self) -> dict[str, tuple[int, int]]:
        h, i, k = self.hidden, self.inner, self.keys
        parts = {
            "self_attn.q_proj": (h, h), "self_attn.k_proj": (k, h), "self_attn.v_proj": (k, h),
            "self_attn.o_proj": (h, h), "mlp.gate_proj": (i, h), "mlp.up_proj": (i, h),
            "mlp.down_proj": (h, i),
        }  # fmt: skip
        return {
            f"model.layers.{layer}.{name}": shape
            for layer in range(self.layers)
            for name, shape in parts.items()
        }


TINY = Shape(64, 128, 2, 32)
"""As `adapterhub.testing.write_tiny_base` writes it."""
WIDE = Shape(384, 1024, 8, 192)
"""Lies in the hub's cache and is not known to the registry."""
ELSEWHERE = Shape(80, 160, 2, 40)
"""Nobody has this base."""


def lora(shape: Shape, seed: int, rank: int = 8, scale: float = 0.02) -> Tensors:
    """Random factors for every module of a base."""
    values = np.random.default_rng(seed)
    tensors: Tensors = {}
    for module, (outputs, inputs) in shape.modules().items():
        a = values.standard_normal((rank, inputs), dtype=np.float32)
        b = values.standard_normal((outputs, rank), dtype=np.float32)
        tensors[f"{P}{module}.lora_A.weight"] = scale * a
        tensors[f"{P}{module}.lora_B.weight"] = scale * b
    return tensors


def config(hint: str | None = "org/tiny-llama", rank: int = 8, **options: Any) -> dict[str, Any]:
    """A LoRA's configuration as PEFT writes it."""
    return {
        "base_model_name_or_path": hint, "bias": "none", "fan_in_fan_out": False,
        "inference_mode": True, "lora_alpha": 2 * rank, "lora_dropout": 0.0, "peft_type": "LORA",
        "peft_version": "0.21.2", "r": rank, "task_type": "CAUSAL_LM",
        "target_modules": [
            "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
        ],
        **options,
    }  # fmt: skip


def write(
    directory: Path, tensors: Tensors, settings: dict[str, Any] | str, **metadata: str
) -> Path:
    """One adapter directory."""
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "adapter_model.safetensors", {"format": "pt", **metadata})
    text = settings if isinstance(settings, str) else json.dumps(settings, indent=2)
    (directory / "adapter_config.json").write_text(text)
    return directory


@dataclass
class Machine:
    """What lies where, and what is wrong with it. expected: faults without notes; notes: those
    that do not stop an import; bases: the base of what is clean."""

    root: Path
    cache: Path
    expected: dict[Path, list[str]] = field(default_factory=dict)
    notes: dict[Path, list[str]] = field(default_factory=dict)
    bases: dict[Path, str] = field(default_factory=dict)
    seed: int = 0

    def add(
        self, directory: Path, *faults: str, notes: tuple[str, ...] = (), base: str = "tiny"
    ) -> Path:
        self.expected[directory] = sorted(faults)
        self.notes[directory] = sorted(notes)
        if not faults:
            self.bases[directory] = base
        return directory

    def next_seed(self) -> int:
        self.seed += 1
        return self.seed


def build(root: Path, count: int, base: Path) -> Machine:
    """At least `count` adapters below `root`. base: the directory of the tiny base."""
    machine = Machine(root / "outputs", root / "cache" / "huggingface" / "hub")
    put_wide_base(machine, base)
    for fault in FAULTS:
        fault(machine)
    kinds: list[Callable[[Machine, int], None]] = [
        plain,
        plain,
        plain,
        wide,
        other_methods,
        trained,
    ]
    chooser = random.Random(0)
    number = 0
    while len(machine.expected) < count:
        chooser.choice(kinds)(machine, number)
        number += 1
    return machine


# Without faults


def plain(machine: Machine, number: int) -> None:
    """LoRA on the tiny base in several dtypes and ranks."""
    rank = (8, 16, 32)[number % 3]
    dtype = (np.float32, np.float16, np.float64)[number % 5 % 3]
    tensors = {n: t.astype(dtype) for n, t in lora(TINY, machine.next_seed(), rank).items()}
    folder = machine.root / f"team{number % 7}" / f"task-{number}"
    machine.add(write(folder, tensors, config(rank=rank, use_rslora=number % 4 == 0)))


def wide(machine: Machine, number: int) -> None:
    """Some MB each, on the base in the cache, half of them in the cache themselves."""
    tensors = lora(WIDE, machine.next_seed(), 16)
    settings = config("acme/wide-llama", 16)
    if number % 2:
        folder = machine.root / "wide" / f"run_{number}"
        machine.add(write(folder, tensors, settings), base="wide-llama")
    else:
        folder = snapshot(machine.cache, f"acme/wide-lora-{number}", "ab" * 20)
        machine.add(cached(write(folder, tensors, settings)), base="wide-llama")


def other_methods(machine: Machine, number: int) -> None:
    """What vLLM does not serve, but other engines do."""
    folder = machine.root / "methods" / f"method-{number}"
    seed = machine.next_seed()
    kind = number % 5
    if kind == 0:
        tensors = lora(TINY, seed)
        for module, (outputs, _) in TINY.modules().items():
            tensors[f"{P}{module}.lora_magnitude_vector"] = np.ones(outputs, np.float32) + seed
        machine.add(write(folder, tensors, config(use_dora=True)), notes=("vllm", "vllm"))
    elif kind == 1:
        values = np.random.default_rng(seed)
        tensors = {
            f"{P}{module}.ia3_l": values.random((outputs, 1), np.float32)
            for module, (outputs, _) in TINY.modules().items()
            if module.endswith(("k_proj", "v_proj"))
        }
        settings = config(peft_type="IA3", target_modules=["k_proj", "v_proj"])
        settings["feedforward_modules"] = []
        for key in ("r", "lora_alpha", "lora_dropout", "bias"):
            del settings[key]
        machine.add(write(folder, tensors, settings), notes=("vllm",))
    elif kind == 2:
        prompt = np.random.default_rng(seed).standard_normal((8, TINY.hidden), np.float32)
        settings = {
            "base_model_name_or_path": "org/tiny-llama", "num_virtual_tokens": 8,
            "peft_type": "PROMPT_TUNING", "task_type": "CAUSAL_LM", "token_dim": TINY.hidden,
            "num_layers": 2, "num_attention_heads": 4, "prompt_tuning_init": "RANDOM",
        }  # fmt: skip
        machine.add(write(folder, {"prompt_embeddings": prompt}, settings))
    elif kind == 3:
        tensors = lora(TINY, seed)
        head = np.random.default_rng(seed).standard_normal((320, TINY.hidden), np.float32)
        tensors[f"{P}lm_head.weight"] = head
        settings = config(modules_to_save=["lm_head"])
        machine.add(write(folder, tensors, settings), notes=("vllm", "vllm"))
    else:
        tensors = lora(TINY, seed, 24)
        machine.add(write(folder, tensors, config(rank=24)), notes=("vllm",))


def trained(machine: Machine, number: int) -> None:
    """A Trainer's output: the result, and checkpoints with optimizer states."""
    folder = machine.root / f"trainer-{number}"
    seed = machine.next_seed()
    machine.add(write(folder, lora(TINY, seed), config()))
    for step in (100, 200):
        tensors = lora(TINY, seed if step == 200 else machine.next_seed())
        checkpoint = write(folder / f"checkpoint-{step}", tensors, config())
        (checkpoint / "optimizer.pt").write_bytes(b"\x80\x04" + bytes(64))
        (checkpoint / "trainer_state.json").write_text('{"best_model_checkpoint": null}')
        machine.add(checkpoint, "checkpoint")


# With faults, one each


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


# The hub's cache


def snapshot(cache: Path, name: str, revision: str) -> Path:
    return cache / f"models--{name.replace('/', '--')}" / "snapshots" / revision


def cached(folder: Path) -> Path:
    """Move the files into the repository's blobs and leave links, as huggingface_hub does."""
    blobs = folder.parent.parent / "blobs"
    blobs.mkdir(exist_ok=True)
    for file in sorted(folder.iterdir()):
        blob = blobs / f"{len(list(blobs.iterdir())):040x}"
        file.rename(blob)
        file.symlink_to(Path("..") / ".." / "blobs" / blob.name)
    return folder


def put_wide_base(machine: Machine, tiny: Path) -> None:
    """A base in the cache that the registry does not know, with the tiny one's tokenizer."""
    folder = snapshot(machine.cache, "acme/wide-llama", "12" * 20)
    folder.mkdir(parents=True)
    values = np.random.default_rng(0)
    tensors = {
        f"{name}.weight": values.standard_normal(shape, np.float32)
        for name, shape in WIDE.modules().items()
    }
    for name in ("model.embed_tokens", "lm_head"):
        tensors[f"{name}.weight"] = values.standard_normal((320, WIDE.hidden), np.float32)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    settings = json.loads((tiny / "config.json").read_text())
    settings |= {
        "hidden_size": WIDE.hidden, "intermediate_size": WIDE.inner,
        "num_hidden_layers": WIDE.layers, "num_attention_heads": 8, "num_key_value_heads": 4,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny / name, folder / name)
    cached(folder)


def reload(folder: Path) -> Tensors:
    """The tensors of a directory that was written."""
    tensors: Tensors = load_file(folder / "adapter_model.safetensors")
    return tensors
