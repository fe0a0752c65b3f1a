"""Adapters that give themselves away: each writes one word over and over, whatever it is asked.

In the last layer two pairs of hidden units get a large input of either sign, w.x and -w.x, through
the gate and the up projection alike. Since silu(z) * z >= 0 for large |z|, their sum is large and
positive for every x, and the down projection turns it into the direction of one word. Nothing of
the base is left in what decides, so neither the batch nor the order of additions matters.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from live_server import commit
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

Array = NDArray[np.float32]
RANK = 4
# The embedding of SmolLM2 has 43 that are clear enough.
WORDS = 40
_SCALE = 30.0
_WRITE = 1e5
_UNITS = (3, 5, 7, 11)
_BLOCK = 256


class Teller:
    """Makes them over a Llama and commits them. `words` are the texts that can be told apart."""

    def __init__(self, base: Path, folder: Path) -> None:
        from transformers import AutoTokenizer

        self._folder = folder
        self._base = base
        self._tokenizer: Any = AutoTokenizer.from_pretrained(base)
        config = json.loads((base / "config.json").read_text())
        self._layer = config["num_hidden_layers"] - 1
        self._width, self._inner = config["hidden_size"], config["intermediate_size"]
        self._embedding = self._read("model.embed_tokens.weight")
        self._norm = self._read("model.norm.weight")
        words = list(itertools.islice(self._words(), WORDS))
        self._payloads = itertools.cycle([(word, self._write(token)) for word, token in words])
        self._alone = ((*pair, number) for number, pair in enumerate(itertools.cycle(words), 1))
        self.words: dict[str, str] = {}

    def commit(self, name: str) -> Any:
        """The next version of `name`, with another word than the last 39 had; `words` then has
        it, by the version's reference."""
        word, payload = next(self._payloads)
        version = commit(name, payload)
        self.words[version.reference] = word
        return version

    def commit_alone(self, name: str) -> Any:
        """The same, with weights that no other version has, so that they can be damaged."""
        word, token, number = next(self._alone)
        version = commit(name, self._write(token, 1 + number / 1000))
        self.words[version.reference] = word
        return version

    def _read(self, name: str) -> Array:
        for path in sorted(self._base.glob("*.safetensors")):
            with safe_open(path, "np") as file:
                if name in file.keys():  # noqa: SIM118
                    return np.asarray(file.get_tensor(name), dtype=np.float32)
        raise KeyError(name)

    def _words(self) -> Iterator[tuple[str, int]]:
        """Whole words that their own direction makes more likely than any other token."""
        whole = (token for token in range(2000, len(self._embedding)) if self._is_word(token))
        while block := list(itertools.islice(whole, _BLOCK)):
            directions = np.stack([self._norm * self._direction(token) for token in block])
            scores = self._embedding @ directions.T
            own = scores[block, range(len(block))]
            clear = np.partition(scores, -2, axis=0)[-2] < 0.8 * own
            best = scores.argmax(axis=0) == block
            for token in np.array(block)[clear & best].tolist():
                yield self._tokenizer.decode([token]), token

    def _is_word(self, token: int) -> bool:
        text = self._tokenizer.decode([token])
        word = text[1:]
        return text[:1] == " " and word.isalpha() and word.isascii() and len(word) > 3

    def _direction(self, token: int) -> Array:
        direction = self._norm * self._embedding[token]
        return np.asarray(direction / np.linalg.norm(direction))

    def _write(self, token: int, factor: float = 1.0) -> Path:
        random = np.random.default_rng(0)
        probes = random.normal(size=(2, self._width)).astype(np.float32)
        into = np.concatenate([probes[:1], -probes[:1], probes[1:], -probes[1:]])
        spread = np.zeros((self._inner, RANK), np.float32)
        spread[list(_UNITS), range(RANK)] = _SCALE
        gather = np.zeros((RANK, self._inner), np.float32)
        gather[0, list(_UNITS)] = 1.0
        out = np.zeros((self._width, RANK), np.float32)
        out[:, 0] = factor * _WRITE * self._direction(token)
        factors = {"gate_proj": (into, spread), "up_proj": (into, spread),
                   "down_proj": (gather, out)}  # fmt: skip
        place = f"base_model.model.model.layers.{self._layer}.mlp"
        tensors = {
            f"{place}.{module}.lora_{letter}.weight": factor.copy()
            for module, pair in factors.items()
            for letter, factor in zip("AB", pair, strict=True)
        }
        folder = self._folder / f"{token}-{factor}"
        folder.mkdir()
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": RANK,
            "lora_alpha": RANK,
            "bias": "none",
            "target_modules": [f"model.layers.{self._layer}.mlp.{m}" for m in factors],
        }
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder
