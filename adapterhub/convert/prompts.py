"""What the logits are measured on: recorded rows where they are found, else fixed texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from adapterhub.bases.digests import hash_file
from adapterhub.convert.source import Source
from adapterhub.data import encode, read_examples, stop_token
from adapterhub.protocols import Example

ROWS = 16
LENGTH = 256
_TEXTS = (
    ("What is the capital of France?", " The capital of France is Paris."),
    ("Write a Python function that adds two numbers.", "\ndef add(a, b):\n    return a + b\n"),
    ("Translate to German: The weather is nice today.", " Das Wetter ist heute schön."),
    ("SELECT name FROM users WHERE age > 30", " ORDER BY name LIMIT 10;"),
    ("Is this review positive or negative? 'I loved every minute.'", " positive"),
    ("12 + 30 =", " 42"),
    ("Once upon a time", ", in a small village, there lived an old man with three daughters."),
    ("List three colours.", " Red, green and blue."),
)


@dataclass(frozen=True, slots=True)
class Prompts:
    """Token ids, and where they came from in words."""

    origin: str
    rows: tuple[tuple[int, ...], ...]


def choose_prompts(source: Source, data: Path | None, tokenizer: Any) -> Prompts:
    """The first rows of `data`; of the adapter's own training file where it lies here under its
    recorded name with its recorded sha256; or a few fixed texts."""
    manifest = source.version.manifest if source.version else None
    prompt_format = (manifest and manifest.prompt_format) or "plain"
    file = data or _recorded(manifest.data if manifest else ())
    examples: Sequence[Example]
    if file is None:
        origin = "fixed texts"
        examples = [Example(prompt=p, completion=c) for p, c in _TEXTS]
    else:
        origin = file.name
        columns = (manifest.recipe.get("data") or {}).get("columns") if manifest else None
        examples = read_examples(file, columns=None if data else columns).examples
    stop = stop_token(tokenizer, prompt_format)
    rows = (
        (*prompt, *completion)[:LENGTH]
        for prompt, completion in (
            encode(example, tokenizer, prompt_format, stop) for example in islice(examples, ROWS)
        )
    )
    return Prompts(origin, tuple(rows))


def _recorded(data: Sequence[Mapping[str, Any]]) -> Path | None:
    for entry in data:
        # A base name by its making; a manifest from elsewhere may hold anything.
        path = Path(Path(str(entry.get("file", ""))).name)
        if path.is_file() and hash_file(path) == entry.get("sha256"):
            return path
    return None
