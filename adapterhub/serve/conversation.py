"""A chat with one model, or the same chat with several: who is asked, and what was said."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from adapterhub.errors import AdzError, usage_error
from adapterhub.serve.client import Answer, Client


@dataclass(slots=True)
class Side:
    """One model and all that was said with it; each model remembers its own answers only."""

    reference: str
    messages: list[dict[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Conversation:
    """What `adz chat` holds while it runs."""

    client: Client
    sides: list[Side]
    max_tokens: int
    temperature: float
    system: str | None = None

    def ask(self, side: Side, text: str) -> Generator[Answer, None, None]:
        """The answer of one side, piece by piece. Where the reading ends early, what came so far
        is what was said; where the server refuses, nothing was."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        turn = {"role": "user", "content": text}
        said = ""
        try:
            for piece in self.client.chat(
                side.reference,
                [*system, *side.messages, turn],
                max_tokens=self.max_tokens,
                temperature=self.temperature,
            ):
                said += piece.text
                yield piece
        except AdzError:
            said = ""
            raise
        finally:
            if said:
                side.messages += [turn, {"role": "assistant", "content": said}]

    def switch(self, references: Sequence[str]) -> None:
        """Talk to these from now on; they are told what the first side said until now. Raises
        AdzError with the nearest names for one that the server does not know."""
        if not references:
            raise usage_error("/model needs a name", f"one of {', '.join(self.client.models())}")
        self._check(references)
        before = self.sides[0].messages
        self.sides = [Side(reference, list(before)) for reference in references]

    def clear(self) -> None:
        """Forget all that was said; the system prompt stays."""
        for side in self.sides:
            side.messages.clear()

    def save(self, file: Path) -> int:
        """Write a line for each side, as training reads it: `messages`, and which `model`.

        Returns how many lines. Raises AdzError where the file is there already."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        rows = [
            {"model": side.reference, "messages": [*system, *side.messages]}
            for side in self.sides
            if side.messages
        ]
        if not rows:
            raise usage_error("nothing was said yet")
        try:
            with file.open("x", encoding="utf-8") as out:
                out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        except FileExistsError as error:
            raise usage_error(f"{file} is there already", "choose another name") from error
        except OSError as error:
            raise AdzError(f"{file} cannot be written: {error.strerror}") from error
        return len(rows)

    def _check(self, references: Iterable[str]) -> None:
        known = {model.partition("@")[0] for model in self.client.models()}
        for reference in references:
            name = reference.partition("@")[0]
            # An expression has operands, which the server checks.
            if name in known or "*" in reference or "+" in reference:
                continue
            near = get_close_matches(name, sorted(known), n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {sorted(known)}"
            raise usage_error(f"the server has no {reference!r}", hint)
