"""Rows that run over one model: they join and leave between two tokens."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from adapterhub.generate import Row
from adapterhub.generate.static import run_rows
from adapterhub_transformers.job import Job
from adapterhub_transformers.kv_cache import Segment, SlotCache
from adapterhub_transformers.mixed_lora import Columns, MixedLora, Run

_CHUNK = 512
"""Tokens of prompts that are read between two tokens of the rows that run."""


@dataclass(slots=True, eq=False)
class Seat:
    """A job's row. `columns`: its plain LoRA; `prompt_model`: PEFT's model that reads the prompt
    of a soft prompt, whose answer the base then writes; `cached`: positions in the cache."""

    job: Job
    row: Row
    columns: Columns | None = None
    prompt_model: Any = None
    cached: int = 0

    def take(self, logits: torch.Tensor) -> None:
        """The next token; an answer that ends, or fails, is handed over."""
        try:
            if logits.isnan().any():
                raise ArithmeticError("the adapter's numbers overflow")
            self.row.take(logits)
        # A grammar, or a sum that is not a number: nobody else's.
        except Exception as error:
            self.fail(error)
        else:
            if self.row.done:
                self.job.done.set_result(self.row.result)

    def fail(self, error: Exception) -> None:
        """Hand over what went wrong."""
        if not self.job.done.done():
            self.job.done.set_exception(error)

    @property
    def over(self) -> bool:
        """Whether its job is answered."""
        return self.job.done.done()


class Lane(Protocol):
    """Where rows run. All of it in the model's thread."""

    def add(self, seat: Seat) -> None:
        """Let a row join at the next step."""

    def step(self) -> None:
        """Bring the rows on by a token, or more; never raises."""

    @property
    def seats(self) -> Sequence[Seat]:
        """The rows that are not done."""


class StaticLane:
    """Rows that begin and end together, by transformers' own `generate`: for models that keep
    more than keys and values, and methods that are not PEFT's."""

    def __init__(self, model: Any, tokenizer: Any, stop_ids: frozenset[int]) -> None:
        self._model, self._tokenizer, self._stop_ids = model, tokenizer, stop_ids
        self._waiting: list[Seat] = []

    @property
    def seats(self) -> Sequence[Seat]:
        """Those that wait for the next batch."""
        return self._waiting

    def add(self, seat: Seat) -> None:
        """Join the next batch."""
        self._waiting.append(seat)

    def step(self) -> None:
        """Answer all that wait."""
        if not self._waiting:
            return
        batch, self._waiting = self._waiting, []
        try:
            run_rows(self._model, [seat.row for seat in batch], self._tokenizer, self._stop_ids)
        except Exception as error:
            for seat in batch:
                seat.fail(error)
        for seat in batch:
            if not seat.over:
                seat.job.done.set_result(seat.row.result)


class ContinuousLane:
    """Rows over one model with a cache of keys and values; with `adapters`, rows of many."""

    def __init__(self, model: Any, adapters: MixedLora | None = None) -> None:
        self._model = model
        self._adapters = adapters
        self._device = next(model.parameters()).device
        self._cache = SlotCache()
        self._waiting: deque[Seat] = deque()
        # A long prompt, read in chunks in the slot behind those of the running rows.
        self._reading: Seat | None = None
        # Place i is slot i of the cache.
        self._running: list[Seat] = []

    @property
    def seats(self) -> Sequence[Seat]:
        """The rows that wait, read their prompt or run."""
        reading = [self._reading] if self._reading else []
        return [*self._waiting, *reading, *self._running]

    def add(self, seat: Seat) -> None:
        """Read the seat's prompt at the next step."""
        self._waiting.append(seat)

    def room(self, tokens: int, budget: int) -> bool:
        """Whether a row of `tokens` fits into `budget` bytes of keys and values beside others."""
        rows = self.seats
        longest = max([tokens, *(len(s.row.prompt) + len(s.row.result.tokens) for s in rows)])
        return not rows or (len(rows) + 1) * longest * self._cache.bytes_of_token <= budget

    def step(self) -> None:
        """Read some prompts, then one token for each row that runs."""
        with torch.inference_mode():
            self._guarded(self._read, self._next_prompts())
            self._guarded(self._decode, list(self._running))
        if not self.seats:
            self._cache.release()

    def _guarded(self, work: Callable[[list[Seat]], None], seats: list[Seat]) -> None:
        if not seats:
            return
        try:
            work(seats)
        # Memory may run out, a method may refuse: the rows of this call only.
        except Exception as error:
            for seat in seats:
                seat.fail(error)
        self._sweep()

    def _next_prompts(self) -> list[Seat]:
        """Those whose prompts are read in one call: a soft prompt or a chunk alone, short ones
        together, neighbours by adapter."""
        if self._reading is None and self._waiting:
            first = self._waiting.popleft()
            if first.prompt_model is not None:
                return [first]
            if len(first.row.prompt) > _CHUNK:
                self._reading = first
            else:
                return self._pack(first)
        return [self._reading] if self._reading else []

    def _pack(self, first: Seat) -> list[Seat]:
        pack, tokens = [first], len(first.row.prompt)
        while self._waiting and self._waiting[0].prompt_model is None:
            tokens += len(self._waiting[0].row.prompt)
            if tokens > _CHUNK:
                break
            pack.append(self._waiting.popleft())
        return sorted(pack, key=lambda seat: seat.columns.begin if seat.columns else -1)

    def _read(self, seats: list[Seat]) -> None:
        if seats[0].prompt_model is not None:
            self._read_soft(seats[0])
            return
        first = len(self._running)
        parts = [
            Segment(first + place, seat.cached, min(_CHUNK, len(seat.row.prompt) - seat.cached))
            for place, seat in enumerate(seats)
        ]
        self._cache.fill(parts)
        logits = self._call(
            [
                seat.row.prompt[part.start : part.start + part.count]
                for seat, part in zip(seats, parts, strict=True)
            ],
            parts,
            [seat.columns for seat in seats],
        )
        for place, (seat, part) in enumerate(zip(seats, parts, strict=True)):
            seat.cached += part.count
            if seat.cached == len(seat.row.prompt):
                self._begin(seat, logits[place])

    def _call(
        self,
        tokens: Sequence[Sequence[int]],
        parts: Sequence[Segment],
        columns: Sequence[Columns | None],
    ) -> torch.Tensor:
        """Logits (segments, vocabulary) of the last token of each segment."""
        counts = [part.count for part in parts]
        lasts = torch.tensor(counts).cumsum(0) - 1
        self._use([*zip(columns, counts, strict=True)], [(own, 1) for own in columns])
        out = self._model(
            input_ids=torch.tensor([[token for row in tokens for token in row]]).to(self._device),
            attention_mask=_prompt_mask(parts, self._model.dtype).to(self._device),
            position_ids=torch.cat(
                [torch.arange(part.start, part.start + part.count) for part in parts]
            )[None].to(self._device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=lasts.to(self._device),
        )
        logits: torch.Tensor = out.logits[0]
        return logits

    def _read_soft(self, seat: Seat) -> None:
        ids = torch.tensor([seat.row.prompt], device=self._device)
        out = seat.prompt_model(input_ids=ids, use_cache=True)
        seat.cached = self._cache.put(len(self._running), out.past_key_values)
        self._begin(seat, out.logits[0, -1])

    def _begin(self, seat: Seat, logits: torch.Tensor) -> None:
        if seat is self._reading:
            self._reading = None
        self._running.append(seat)
        seat.take(logits)

    def _decode(self, seats: list[Seat]) -> None:
        positions = torch.tensor([seat.cached for seat in seats])
        longest = int(positions.max())
        hidden = torch.arange(longest + 1) > positions[:, None]
        lowest = torch.finfo(self._model.dtype).min
        mask = torch.zeros(hidden.shape, dtype=self._model.dtype).masked_fill_(hidden, lowest)
        positions = positions.to(self._device)
        self._cache.decode(positions, longest)
        runs: list[Run] = [(seat.columns, 1) for seat in seats]
        self._use(runs, runs)
        out = self._model(
            input_ids=torch.tensor([[s.row.result.tokens[-1]] for s in seats]).to(self._device),
            attention_mask=mask[:, None, None].to(self._device),
            position_ids=positions[:, None],
            past_key_values=self._cache,
            use_cache=True,
        )
        for place, seat in enumerate(seats):
            seat.cached += 1
            seat.take(out.logits[place, -1])

    def _use(self, tokens: Sequence[Run], sampled: Sequence[Run]) -> None:
        if self._adapters is not None:
            self._adapters.use(tokens, sampled)

    def _sweep(self) -> None:
        """Take the rows out that are over, and close the gaps."""
        if self._reading and self._reading.job.abandoned:
            self._reading.fail(ConnectionAbortedError("nobody waits for the answer"))
        for place in reversed(range(len(self._running))):
            if self._running[place].over:
                self._remove(place)
        if self._reading and self._reading.over:
            self._reading = None

    def _remove(self, place: int) -> None:
        last = self._running.pop()
        if place < len(self._running):
            self._cache.move(len(self._running), place, last.cached)
            self._running[place] = last
        if self._reading and self._reading.cached:
            self._cache.move(len(self._running) + 1, len(self._running), self._reading.cached)


def _prompt_mask(parts: Sequence[Segment], dtype: torch.dtype) -> torch.Tensor:
    """(1, 1, tokens, positions), to be added: each segment sees what is before in its row."""
    owner = torch.cat([torch.full((part.count,), place) for place, part in enumerate(parts)])
    start = parts[0].start
    query = torch.arange(len(owner)) + start
    hidden = torch.arange(start + len(owner)) > query[:, None]
    if len(parts) > 1:
        hidden |= owner != owner[:, None]
    mask = torch.zeros(hidden.shape, dtype=dtype)
    return mask.masked_fill_(hidden, torch.finfo(dtype).min)[None, None]
