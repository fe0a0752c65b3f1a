"""Rows on which the logits of two models are compared: recorded ones where they are found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.bases.digests import hash_file
from adapterhub.data import choose_format, encode, read_examples, stop_token
from adapterhub.manifest import Version
from adapterhub.protocols import Example

_ROWS = 8
_LENGTH = 96
_FIXED = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Write one sentence about the sea.", "The sea was calm, and the boats lay still."),
    ("List three colours.", "red, green, blue"),
    ("Translate to French: good morning", "bonjour"),
    ("def add(a, b):", " return a + b"),
    ("Is 17 a prime number?", "Yes, 17 has no divisors but 1 and itself."),
    ("The weather in autumn is", " often wet and windy."),
    ("SELECT name FROM users WHERE", " age > 30 ORDER BY name;"),
)


@dataclass(frozen=True, slots=True)
class ReferenceRows:
    """Token ids, and where they are from in words."""

    source: str
    rows: tuple[tuple[int, ...], ...]


def reference_rows(version: Version | None, data: Path | None, tokenizer: Any) -> ReferenceRows:
    """A few rows, prompt and answer.

    `data`, else the file that the version was trained on where it lies here under its recorded
    name with its recorded sha256, else fixed prompts.
    """
    source, examples = _examples(version, data)
    recorded = version.manifest.prompt_format if version else None
    prompt_format = recorded or choose_format(examples, tokenizer)
    stop = stop_token(tokenizer, prompt_format)
    encoded = (encode(example, tokenizer, prompt_format, stop) for example in examples[:_ROWS])
    rows = tuple((*prompt, *completion)[-_LENGTH:] for prompt, completion in encoded)
    return ReferenceRows(source, rows)


def _examples(version: Version | None, data: Path | None) -> tuple[str, Sequence[Example]]:
    if data is not None:
        return data.name, read_examples(data).examples
    for record in version.manifest.data if version else ():
        # A base name by its making; a manifest from elsewhere may hold anything.
        file = Path(Path(str(record.get("file", ""))).name)
        if version and file.is_file() and hash_file(file) == record.get("sha256"):
            columns = (version.manifest.recipe.get("data") or {}).get("columns")
            return file.name, read_examples(file, record.get("format"), columns=columns).examples
    return "fixed prompts", [Example(prompt=p, completion=c) for p, c in _FIXED]
