"""One prompt that somebody waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from adapterhub.generate import Continuation, Sampling, TokenScore
from adapterhub.manifest import Version

OnPiece = Callable[[str, Sequence[TokenScore]], None]
"""Called in the model's thread with new text, and the scores of the tokens since the last call
where log-probabilities are asked for."""


@dataclass(slots=True, eq=False)
class Job:
    """`done` is set with the answer, or with what went wrong."""

    version: Version | None
    tokens: Sequence[int]
    sampling: Sampling
    on_piece: OnPiece | None = None
    done: Future[Continuation] = field(default_factory=Future)
    abandoned: bool = False

    @property
    def model(self) -> str:
        """Which weights answer: a digest, so that aliases may move; empty for the base."""
        return self.version.digest if self.version else ""

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self.abandoned = True
        self.done.cancel()
