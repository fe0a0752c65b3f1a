"""What is asked of whom: subjects (a base or a version), their prompts, and who answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from adapterhub.data import as_messages, render
from adapterhub.data.prompt import PromptFormat
from adapterhub.manifest import Version
from adapterhub.protocols import Example, Task

_APART = "\n\n"


@dataclass(frozen=True, slots=True)
class Subject:
    """A row of the table. `model` names it in a request, and always means this version."""

    name: str
    model: str
    version: Version | None


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


def reference_of(example: Example) -> str:
    """The text that an answer is compared with."""
    return example.messages[-1]["content"] if example.messages else example.completion


def _plain(example: Example) -> tuple[str, str]:
    return render(example, None, "plain")
