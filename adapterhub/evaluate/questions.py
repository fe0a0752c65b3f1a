"""What is asked of whom: subjects (a base or a version), their prompts, and who answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from adapterhub.data import as_messages, render
from adapterhub.data.prompt import PromptFormat
from adapterhub.manifest import Version
from adapterhub.protocols import Example, Task

_APART = "\n\n"
# An answer that runs on this many tokens beyond the longest reference equals none of them.
_BEYOND = 8


@dataclass(frozen=True, slots=True)
class Subject:
    """A row of the table. `model` names it in a request, and always means this version.

    version: None for the base. directory: a LoRA adapter that is no version (yet), as PEFT
    opens it; only a local answerer can be asked for one.
    """

    name: str
    model: str
    version: Version | None
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One row asked of one subject. The answer in `example` is never shown."""

    subject: Subject
    example: Example
    prompt_format: PromptFormat
    shots: tuple[Example, ...]
    stop: tuple[str, ...]
    max_tokens: int

    def text(self) -> str:
        """The plain prompt: the shots with their answers, then the question."""
        shown = "".join("".join(_plain(shot)).rstrip() + _APART for shot in self.shots)
        return shown + _plain(self.example)[0]

    def messages(self) -> list[Mapping[str, str]]:
        """The chat: the shots as turns, then the question."""
        turns = [message for shot in self.shots for message in as_messages(shot)]
        return [*turns, *as_messages(self.example)[:-1]]


class Answerer(Protocol):
    """Answers questions, in process or over a connection."""

    engine: str
    """What answered, for the record."""

    def answer(self, questions: Sequence[Question], task: Task) -> list[str]:
        """Greedy answers in the order of the questions; `task` advances by one for each."""


def make_questions(
    subject: Subject,
    rows: Sequence[Example],
    prompt_format: PromptFormat,
    tokenizer: Any,
    *,
    shots: Sequence[Example] = (),
    max_tokens: int | None = None,
) -> list[Question]:
    """A question for each row. max_tokens: None for a little more than the longest reference."""
    references = [reference_of(row) for row in rows]
    # A line is an answer, unless some answers have several.
    one_line = prompt_format == "plain" and not any("\n" in r.strip() for r in references)
    longest = max(len(tokenizer(r)["input_ids"]) for r in references)
    return [
        Question(
            subject,
            row,
            prompt_format,
            shots=tuple(shots),
            stop=("\n",) if one_line else (),
            max_tokens=max_tokens or longest + _BEYOND,
        )
        for row in rows
    ]


def reference_of(example: Example) -> str:
    """The text that an answer is compared with."""
    return example.messages[-1]["content"] if example.messages else example.completion


def _plain(example: Example) -> tuple[str, str]:
    return render(example, None, "plain")
