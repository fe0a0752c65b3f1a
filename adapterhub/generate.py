"""Batched generation with a loaded model: per-row sampling, stops and log-probabilities.

`model.generate` runs the steps, so that every PEFT method does at inference what it does in
PEFT itself; each row's token is chosen here, so that rows may ask for different things.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from adapterhub.data import stop_token

# PEFT says so at each step of a soft prompt; what follows from it is seen to below.
warnings.filterwarnings("ignore", message="Position ids are not supported")

OnText = Callable[[int, str], bool]
"""Called with a row and its new text after each of its tokens; False ends the row."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """What one request asks for. Temperature 0 is greedy; `logprobs` counts alternatives."""

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None


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


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    samplings: Sequence[Sampling],
    *,
    stop_ids: frozenset[int],
    on_text: OnText = lambda row, text: True,
) -> list[Continuation]:
    """Continue every prompt (token ids), as one batch padded on the left.

    `stop_ids` end a row. Soft prompts lose their position under padding, so there only
    prompts of one length share a batch.
    """
    rows = [
        _Row(number, prompt, sampling, tokenizer, stop_ids, on_text)
        for number, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True))
    ]
    for batch in _batches(model, rows):
        _run(model, batch, tokenizer, stop_ids)
    return [row.result for row in rows]


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer of `model`: its own, the tokenizer's, the chat template's."""
    configured = model.generation_config.eos_token_id
    found = set(configured) if isinstance(configured, list) else {configured}
    found.add(tokenizer.eos_token_id)
    if tokenizer.chat_template:
        found.add(stop_token(tokenizer, "chat"))
    return frozenset(found - {None})


class _Text:
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


class _Row:
    """One request while it runs."""

    def __init__(
        self,
        number: int,
        prompt: Sequence[int],
        sampling: Sampling,
        tokenizer: Any,
        stop_ids: frozenset[int],
        on_text: OnText,
    ) -> None:
        self.prompt = list(prompt)
        self.sampling = sampling
        self.result = Continuation()
        self._number = number
        self._stop_ids = stop_ids
        self._on_text = on_text
        self._text = _Text(tokenizer, prompt)
        self._told = 0
        # The longest text that may still turn out to begin a stop string.
        self._held = max((len(stop) for stop in sampling.stop), default=1) - 1
        self._random = torch.Generator()
        if sampling.seed is not None:
            self._random.manual_seed(sampling.seed)
        else:
            self._random.seed()

    def take(self, logits: torch.Tensor) -> int:
        """Choose the next token from `logits` (vocabulary,), note it, and return it."""
        token = self._choose(logits)
        if self.sampling.logprobs is not None:
            self.result.scores.append(_score(logits, token, self.sampling.logprobs))
        self.result.tokens.append(token)
        if token in self._stop_ids:
            self.result.finish = "stop"
            self._extend(self._text.rest())
        else:
            self._extend(self._text.add(token))
            if self.result.finish is None and len(self.result.tokens) >= self.sampling.max_tokens:
                self.result.finish = "length"
                self._extend(self._text.rest())
        if not self._tell() and self.result.finish is None:
            self.result.finish = "abort"
        return token

    def _choose(self, logits: torch.Tensor) -> int:
        if self.sampling.temperature == 0:
            return int(logits.argmax())
        shares = torch.softmax(logits.float().cpu() / self.sampling.temperature, dim=-1)
        if self.sampling.top_p < 1:
            ordered, places = shares.sort(descending=True)
            beyond = ordered.cumsum(0) - ordered >= self.sampling.top_p
            shares[places[beyond]] = 0
        return int(torch.multinomial(shares, 1, generator=self._random))

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
        return self._on_text(self._number, new)


class _Steps:
    """What `model.generate` asks at each step: which tokens come next, and who is done.

    It is a logits processor and a stopping criterion of transformers'.
    """

    def __init__(self, rows: Sequence[_Row], pad: int) -> None:
        self._rows = rows
        self._pad = pad

    def choose(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(rows, vocabulary) logits in, the same shape out with only the chosen token left."""
        tokens = [
            self._pad if row.result.finish else row.take(scores[place])
            for place, row in enumerate(self._rows)
        ]
        chosen = torch.full_like(scores, float("-inf"))
        return chosen.scatter_(1, torch.tensor(tokens, device=scores.device)[:, None], 0.0)

    def done(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """(rows,) bool."""
        flags = [row.result.finish is not None for row in self._rows]
        return torch.tensor(flags, device=input_ids.device)


def _batches(model: Any, rows: list[_Row]) -> Iterator[list[_Row]]:
    if not getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        yield rows
        return
    for length in sorted({len(row.prompt) for row in rows}):
        yield [row for row in rows if len(row.prompt) == length]


def _run(model: Any, rows: list[_Row], tokenizer: Any, stop_ids: frozenset[int]) -> None:
    from transformers import GenerationConfig

    pad = tokenizer.pad_token_id
    pad = next(iter(stop_ids), 0) if pad is None else pad
    width = max(len(row.prompt) for row in rows)
    ids = torch.tensor([[pad] * (width - len(row.prompt)) + row.prompt for row in rows])
    mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows])
    device = next(model.parameters()).device
    steps = _Steps(rows, pad)
    # Explicit values, because what is left out comes from the model's own defaults.
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max(row.sampling.max_tokens for row in rows),
        min_new_tokens=0,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        pad_token_id=pad,
        eos_token_id=sorted(stop_ids),
        use_cache=True,
    )
    with torch.inference_mode():
        model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            generation_config=config,
            logits_processor=[steps.choose],
            stopping_criteria=[steps.done],
        )


def _score(logits: torch.Tensor, token: int, count: int) -> TokenScore:
    scores = torch.log_softmax(logits.float(), dim=-1)
    best = torch.topk(scores, count) if count else None
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True) if best else ()
    return TokenScore(token, float(scores[token]), tuple(pairs))
