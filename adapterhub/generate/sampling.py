"""What a request asks for, how a token is chosen from logits, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch


class TokenFilter(Protocol):
    """Which tokens may come next, for one row: a grammar, for example."""

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        """(vocabulary,) logits in; the same with -inf for what may not come, as a copy."""

    def accept(self, token: int) -> None:
        """`token` was chosen."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """What one request asks for. Temperature 0 is greedy; `top_k` 0 is no bound; `logprobs` counts
    alternatives; `constrain` makes the filter of a row."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    constrain: Callable[[], TokenFilter] | None = None


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A chosen token, its log-probability (natural, before temperature), and the best ones."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True)
class Continuation:
    """What the model wrote. `text` ends before a stop string; `tokens` holds all that it took."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    scores: list[TokenScore] = field(default_factory=list)
    finish: Literal["stop", "length", "abort"] | None = None


COLDEST = 1e-5
"""Below this temperature the best token is taken, as in vLLM: the rest would be divided by
nothing."""


def choose(logits: torch.Tensor, sampling: Sampling, random: torch.Generator) -> int:
    """The next token, from `logits` (vocabulary,). `random` is a generator on the CPU."""
    if sampling.temperature < COLDEST:
        return int(logits.argmax())
    shares = torch.softmax(logits.float().cpu() / sampling.temperature, dim=-1)
    if sampling.top_p < 1 or sampling.top_k:
        ordered, places = shares.sort(descending=True)
        if sampling.top_k:
            ordered[sampling.top_k :] = 0
            shares[places[sampling.top_k :]] = 0
        beyond = ordered.cumsum(0) - ordered >= sampling.top_p * ordered.sum()
        # However small top_p is, the best token stays.
        beyond[0] = False
        shares[places[beyond]] = 0
    return int(torch.multinomial(shares, 1, generator=random))


def score(logits: torch.Tensor, token: int, count: int) -> TokenScore:
    """The log-probability of `token` under `logits` (vocabulary,), and the `count` best ones."""
    scores = torch.log_softmax(logits.float(), dim=-1)
    best = torch.topk(scores, count) if count else None
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True) if best else ()
    return TokenScore(token, float(scores[token]), tuple(pairs))
