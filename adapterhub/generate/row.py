"""One request while it runs: its tokens, its text, and whether it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from adapterhub.generate.sampling import Continuation, Sampling, TokenScore, choose, score

OnText = Callable[[str, Sequence[TokenScore]], bool]
"""Called after each token with the new text, perhaps none, and the token's score where
log-probabilities are asked for; False ends the row."""


class Text:
    """Turns tokens into text as they come, never half a character."""

    def __init__(self, tokenizer: Any, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        # A few tokens of context, so that the first word keeps its leading space.
        self._tokens = list(prompt[-5:])
        self._start, self._read = 0, len(self._tokens)

    def add(self, token: int) -> str:
        """The text that `token` completes."""
        self._tokens.append(token)
        return self._new(complete=True)

    def rest(self) -> str:
        """What is left at the end, with a replacement character for a broken one."""
        return self._new(complete=False)

    def _new(self, *, complete: bool) -> str:
        known = self._decode(self._tokens[self._start : self._read])
        text = self._decode(self._tokens[self._start :])
        if len(text) <= len(known) or (complete and text.endswith("\N{REPLACEMENT CHARACTER}")):
            return ""
        self._start, self._read = self._read, len(self._tokens)
        return text[len(known) :]

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


class Row:
    """One request. `prompt` is token ids; `result` grows with each token that it takes."""

    def __init__(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        tokenizer: Any,
        stop_ids: frozenset[int],
        on_text: OnText,
    ) -> None:
        self.prompt = list(prompt)
        self.sampling = sampling
        self.result = Continuation()
        self._stop_ids = stop_ids
        self._on_text = on_text
        self._text = Text(tokenizer, prompt)
        self._told = 0
        self._filter = sampling.constrain() if sampling.constrain else None
        # The longest text that may still turn out to begin a stop string.
        self._held = max((len(stop) for stop in sampling.stop), default=1) - 1
        self._random = torch.Generator()
        if sampling.seed is not None:
            self._random.manual_seed(sampling.seed)
        else:
            self._random.seed()

    @property
    def done(self) -> bool:
        """Whether it takes no more tokens."""
        return self.result.finish is not None

    def take(self, logits: torch.Tensor) -> int:
        """Choose the next token from `logits` (vocabulary,), note it, and return it."""
        allowed = self._filter.restrict(logits) if self._filter else logits
        token = choose(allowed, self.sampling, self._random)
        if self.sampling.logprobs is not None:
            self.result.scores.append(score(logits, token, self.sampling.logprobs))
        self.result.tokens.append(token)
        if token in self._stop_ids:
            self.result.finish = "stop"
            self._extend(self._text.rest())
        else:
            if self._filter:
                self._filter.accept(token)
            self._extend(self._text.add(token))
            if self.result.finish is None and len(self.result.tokens) >= self.sampling.max_tokens:
                self.result.finish = "length"
                self._extend(self._text.rest())
        if not self._tell() and self.result.finish is None:
            self.result.finish = "abort"
        return token

    def _extend(self, new: str) -> None:
        begin = max(0, len(self.result.text) - self._held)
        self.result.text += new
        found = [
            place
            for stop in self.sampling.stop
            if (place := self.result.text.find(stop, begin)) >= 0
        ]
        if found:
            self.result.text = self.result.text[: min(found)]
            self.result.finish = "stop"

    def _tell(self) -> bool:
        end = len(self.result.text) - (0 if self.result.finish else self._held)
        new = self.result.text[self._told : max(end, self._told)]
        self._told += len(new)
        return self._on_text(new, self.result.scores[-1:])
