"""Names for what was found: from the repository or the folder, valid and unique."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from adapterhub.adopt.relations import hub_repository

_LONGEST = 64
# Folders that say nothing about the adapter in them: the one above says more. `run-7` does.
_SAYS_NOTHING = re.compile(
    r"(adapter|adapters|adapter_model|best|best_model|checkpoint|ckpt|default|final|final_model"
    r"|last|latest|lora|model|output|outputs|peft|result|results|save|saved|saved_model|weights"
    r"|tmp|out)?[-_.]?\d*|run|(checkpoint|ckpt|epoch|step|global_step)[-_]?\d+"
)


class Names:
    """Hands out names. taken: those of the registry's adapters and bases."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def give(self, directory: Path) -> str:
        """A name for what lies in `directory`, that nothing else has."""
        candidates = _candidates(directory)
        name = next((name for name in candidates if name not in self._taken), None)
        if name is None:
            name = _numbered(candidates[0], self._taken)
        self._taken.add(name)
        return name


def _candidates(directory: Path) -> list[str]:
    """The shortest that says something first, then the same with what tells it from others."""
    repository = hub_repository(directory)
    if repository is not None:
        name, revision = repository
        below = directory.parts[directory.parts.index(revision) + 1 :]
        short = _slug("-".join((name.rpartition("/")[2], *below)))
        return [short, _slug("-".join((name, *below))), _slug(f"{short}-{revision[:7]}")]
    parts = [part for part in directory.parts if part != directory.anchor] or ["adapter"]
    start = len(parts) - 1
    while start > 0 and _SAYS_NOTHING.fullmatch(parts[start].lower()):
        start -= 1
    # `run/checkpoint-20` is named after the run; another one beside it gets the step too.
    return [
        _slug(parts[start]),
        _slug("-".join(parts[start:])),
        _slug("-".join(parts[max(0, start - 1) :])),
    ]


def _slug(text: str) -> str:
    """The nearest name that the registry takes."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", text.lower())
    slug = re.sub(r"\.{2,}", ".", re.sub(r"-{2,}", "-", slug))
    return slug.strip("._-")[-_LONGEST:].strip("._-") or "adapter"


def _numbered(name: str, taken: set[str]) -> str:
    number = 2
    while (numbered := f"{name[: _LONGEST - 6]}-{number}") in taken:
        number += 1
    return numbered
