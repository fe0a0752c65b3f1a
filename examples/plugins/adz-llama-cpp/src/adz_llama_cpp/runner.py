"""The one thread that runs llama.cpp.

Each step brings the rows of one adapter on, all in one batch: llama.cpp puts an adapter over a
whole batch. Those of another adapter have the next step, so that nobody waits for an answer of
somebody else to end.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Thread
from typing import Any, Protocol

import torch

from adapterhub.generate import Continuation, Row, Sampling
from adapterhub.serve.metrics import Residency

BATCH = 512
"""Tokens that one step takes at most."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A token at a place of a slot; wanted: what may follow it is asked for."""

    slot: int
    place: int
    token: int
    wanted: bool


class Model(Protocol):
    """What `llama.LlamaCpp` does; see there."""

    def load_adapter(self, file: Path) -> Any: ...
    def free_adapter(self, adapter: Any) -> None: ...
    def clear(self, slot: int) -> None: ...
    def decode(self, adapter: Any, entries: Sequence[Entry]) -> list[torch.Tensor]: ...


@dataclass(slots=True, eq=False)
class Job:
    """A prompt that somebody waits for. name: the version or base that answers; file: its
    adapter, None for the base. `done` is set with the answer, or with what went wrong."""

    name: str
    file: Path | None
    tokens: Sequence[int]
    sampling: Sampling
    on_text: Callable[[str], None] = lambda text: None
    done: Future[Continuation] = field(default_factory=Future)
    abandoned: bool = False

    def abandon(self) -> None:
        """Nobody waits any more."""
        self.abandoned = True
        self.done.cancel()


@dataclass(slots=True, eq=False)
class _Seat:
    """A job in a slot. pending: tokens that are not read yet; read: how many are."""

    job: Job
    row: Row
    slot: int
    pending: list[int] = field(default_factory=list)
    read: int = 0

    def begin_again(self) -> None:
        """Its slot is empty: all of the row is to be read."""
        self.pending = [*self.row.prompt, *self.row.result.tokens]
        self.read = 0


class Runner:
    """Answers jobs in the order in which they come, `slots` of them together.

    max_resident: adapters in memory; the least recently used go first.
    """

    def __init__(
        self,
        model: Model,
        tokenizer: Any,
        stop_ids: frozenset[int],
        *,
        slots: int,
        max_resident: int,
        residency: Residency,
    ) -> None:
        self._model, self._tokenizer, self._stop_ids = model, tokenizer, stop_ids
        self._residency, self._max_resident = residency, max_resident
        self._adapters: OrderedDict[Path, tuple[str, Any]] = OrderedDict()
        self._free = list(range(slots))
        self._seats: deque[_Seat] = deque()
        self._jobs: deque[Job] = deque()
        self._changed = Condition()
        self._stopped = False
        self._thread = Thread(target=self._run, name="llama.cpp", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def is_alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the running rows at their next token, drop what waits, and end the thread."""
        with self._changed:
            self._stopped = True
            for job in self._jobs:
                job.abandon()
            self._jobs.clear()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._wait():
            while (job := self._next()) is not None:
                self._seat(job)
            if self._seats:
                self._step()

    def _wait(self) -> bool:
        """False when there is nothing left to do."""
        with self._changed:
            if not self._seats:
                self._changed.wait_for(lambda: self._jobs or self._stopped)
            return bool(self._seats) or not self._stopped

    def _next(self) -> Job | None:
        """The first job that somebody waits for, if there is a place for it."""
        with self._changed:
            while self._jobs and self._free and not self._stopped:
                job = self._jobs[0]
                if job.file and job.file not in self._adapters and not self._make_place():
                    return None
                self._jobs.popleft()
                if job.done.set_running_or_notify_cancel():
                    return job
        return None

    def _make_place(self) -> bool:
        """Nobody overtakes: who needs an adapter waits until one is idle."""
        busy = {seat.job.file for seat in self._seats}
        while len(self._adapters) >= self._max_resident:
            idle = next((file for file in self._adapters if file not in busy), None)
            if idle is None:
                return False
            name, adapter = self._adapters.pop(idle)
            self._model.free_adapter(adapter)
            self._residency.evicted(name)
        return True

    def _seat(self, job: Job) -> None:
        try:
            self._load(job)
        # Whatever it is belongs to this job; the thread has others to answer.
        except Exception as error:
            job.done.set_exception(error)
            return

        def tell(text: str, scores: object) -> bool:
            if text:
                job.on_text(text)
            return not (job.abandoned or self._stopped)

        slot = self._free.pop()
        self._model.clear(slot)
        seat = _Seat(
            job, Row(job.tokens, job.sampling, self._tokenizer, self._stop_ids, tell), slot
        )
        seat.begin_again()
        self._seats.append(seat)

    def _load(self, job: Job) -> None:
        if job.file is None:
            return
        if job.file not in self._adapters:
            begun = time.monotonic()
            self._adapters[job.file] = job.name, self._model.load_adapter(job.file)
            for seat in self._seats:
                seat.begin_again()
            self._residency.loaded(job.name, time.monotonic() - begun)
        self._adapters.move_to_end(job.file)

    def _step(self) -> None:
        file = self._seats[0].job.file
        group = [seat for seat in self._seats if seat.job.file == file]
        entries, asked = _batch(group)
        try:
            adapter = self._adapters[file][1] if file else None
            logits = self._model.decode(adapter, entries)
        except Exception as error:
            for seat in group:
                seat.job.done.set_exception(error)
        else:
            for seat, scores in zip(asked, logits, strict=True):
                _take(seat, scores)
        for seat in group:
            self._seats.remove(seat)
            if seat.job.done.done():
                self._free.append(seat.slot)
            else:
                self._seats.append(seat)


def _batch(group: Sequence[_Seat]) -> tuple[list[Entry], list[_Seat]]:
    """A token of each row that writes, and of the prompts what else fits; and the rows whose next
    token can be chosen afterwards. The shortest first: a long prompt holds up no other row."""
    entries: list[Entry] = []
    asked = []
    for seat in sorted(group, key=lambda seat: len(seat.pending)):
        now = seat.pending[: BATCH - len(entries)]
        del seat.pending[: len(now)]
        entries += [Entry(seat.slot, seat.read + i, token, False) for i, token in enumerate(now)]
        seat.read += len(now)
        if now and not seat.pending:
            entries[-1] = Entry(seat.slot, seat.read - 1, now[-1], True)
            asked.append(seat)
    return entries, asked


def _take(seat: _Seat, logits: torch.Tensor) -> None:
    try:
        if logits.isnan().any():
            raise ArithmeticError("the adapter's numbers overflow")
        seat.pending.append(seat.row.take(logits))
    except Exception as error:
        seat.job.done.set_exception(error)
    else:
        if seat.row.done:
            seat.job.done.set_result(seat.row.result)
