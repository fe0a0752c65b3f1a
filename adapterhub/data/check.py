"""What `adz data check` finds in a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub import specs
from adapterhub.data.dataset import DataSet, read_examples
from adapterhub.data.split import content_key, prompt_key, split_holdout
from adapterhub.data.store import characters
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Example


@dataclass(frozen=True, slots=True)
class Checked:
    """Facts of a data set that was read to its end; `first` is its first row for people."""

    facts: dict[str, Any]
    first: str

    def as_dict(self) -> dict[str, Any]:
        """The facts."""
        return self.facts


def check_data(
    source: Path, format_name: str | None, *, columns: Mapping[str, str], holdout: float
) -> Checked:
    """Read every row; raises AdzError with the line of the first that is wrong."""
    data = read_examples(source, format_name, columns=columns)
    _, held = split_holdout(data.examples, holdout)
    lengths = [characters(example) for example in data.examples]
    duplicates, contradictions = _repeated(data)
    facts = {
        **data.record(),
        "kind": data.kind,
        "recognised": "as --format says" if format_name else "recognised from the first row",
        "holdout_rows": len(held),
        "characters": sum(lengths),
        "longest": max(lengths),
        "duplicates": duplicates,
        "contradictions": contradictions,
        "objectives": objectives_for(data.kind),
    }
    return Checked(facts, _shown(data.examples[0]))


def objectives_for(kind: specs.RowKind) -> list[str]:
    """The names of the objectives that learn from such rows."""
    known = load_plugins().components(specs.Objective)
    return sorted(
        name
        for name, objective in known.items()
        if kind in objective.kinds and not objective.unavailable
    )


def _repeated(data: DataSet) -> tuple[int, int]:
    """Rows that are copies, and questions with more than one answer; 32 bytes kept of each."""
    rows: set[bytes] = set()
    questions: set[bytes] = set()
    copies = again = 0
    for example in data.examples:
        content = content_key(example)
        question = hashlib.sha256(prompt_key(example)).digest()
        if content in rows:
            copies += 1
        elif question in questions:
            again += 1
        rows.add(content)
        questions.add(question)
    return copies, again if data.kind == "supervised" else 0


def _shown(example: Example) -> str:
    turns = [(turn["role"], _said(turn)) for turn in example.messages]
    if not turns:
        turns = [("prompt", example.prompt), ("completion", example.completion)]
    if example.rejected is not None:
        turns.append(("rejected", example.rejected))
    if example.desirable is not None:
        turns.append(("label", str(example.desirable).lower()))
    if example.tools:
        turns.insert(0, ("tools", ", ".join(_name(tool) for tool in example.tools)))
    return "\n".join(f"  {name}: {text!r}" for name, text in turns if text)


def _said(turn: Mapping[str, Any]) -> str:
    calls = [call["function"] for call in turn.get("tool_calls", [])]
    return turn["content"] or ", ".join(f"{c['name']}({c['arguments']})" for c in calls)


def _name(tool: Mapping[str, Any]) -> str:
    return str(tool.get("function", tool).get("name", "?"))
