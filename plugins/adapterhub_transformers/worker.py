"""The one thread that runs the model."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from threading import Condition, Thread
from typing import Any

from adapterhub.generate import Row, TokenScore
from adapterhub.serve.removed import SWEEP_SECONDS
from adapterhub_transformers.adapters import Adapters, Loaded
from adapterhub_transformers.job import Job
from adapterhub_transformers.lane import ContinuousLane, Lane, Seat

_LOG = logging.getLogger("adapterhub.serve")

LARGEST_BATCH = 16
"""Rows that run at once."""


class Worker:
    """Answers jobs, each as soon as there is a place among the rows that run.

    cache_bytes: how much memory the keys and values of all rows of one lane may take.
    """

    def __init__(self, adapters: Adapters, tokenizer: Any, *, cache_bytes: int) -> None:
        self.adapters = adapters
        self._tokenizer = tokenizer
        self._cache_bytes = cache_bytes
        self._jobs: deque[Job] = deque()
        self._changed = Condition()
        self._stopped = False
        self._sweep_at = 0.0
        self._thread = Thread(target=self._run, name="adapterhub-model", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; `job.done` is set when it is answered."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def is_alive(self) -> bool:
        """Whether its thread runs; without it nothing is answered any more."""
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
            self._sweep()
            while (job := self._first()) and self._join(job):
                pass
            for lane in self.adapters.lanes:
                lane.step()

    def _sweep(self) -> None:
        """Let go of what was removed from the registry, now and then."""
        now = time.monotonic()
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_SECONDS
        try:
            self.adapters.let_go_of_removed({seat.job.model for seat in self._seats()}.__contains__)
        # Whatever it is, the requests that come must be answered.
        except Exception:
            _LOG.exception("looking for removed versions failed")

    def _wait(self) -> bool:
        """False when there is nothing left to do."""
        with self._changed:
            if not self._seats():
                self._changed.wait_for(lambda: self._jobs or self._stopped, SWEEP_SECONDS)
        return bool(self._seats()) or not self._stopped

    def _seats(self) -> Sequence[Seat]:
        return [seat for lane in self.adapters.lanes for seat in lane.seats]

    def _first(self) -> Job | None:
        with self._changed:
            return self._jobs[0] if self._jobs and not self._stopped else None

    def _join(self, job: Job) -> bool:
        """Let the first job join, or drop it; False where it has to wait for a place.

        Nobody overtakes it: a version that is asked for all the time would else keep its place
        for ever.
        """
        seats = self._seats()
        if len(seats) >= LARGEST_BATCH:
            return False
        if job.abandoned:
            return self._drop(job)
        in_use = {seat.job.model for seat in seats}
        try:
            loaded = self.adapters.get(job.version, in_use.__contains__)
        # Whatever it is belongs to this job; the thread has others to answer.
        except Exception as error:
            if self._drop(job) and job.done.set_running_or_notify_cancel():
                job.done.set_exception(error)
            return True
        if loaded is None or not self._fits(loaded.lane, job):
            return False
        if self._drop(job) and job.done.set_running_or_notify_cancel():
            loaded.lane.add(self._seat(job, loaded))
        return True

    def _drop(self, job: Job) -> bool:
        """Take the first job out of the queue; False where `stop` did it before."""
        with self._changed:
            return bool(self._jobs) and self._jobs.popleft() is job

    def _fits(self, lane: Lane, job: Job) -> bool:
        return not isinstance(lane, ContinuousLane) or lane.room(len(job.tokens), self._cache_bytes)

    def _seat(self, job: Job, loaded: Loaded) -> Seat:
        def tell(text: str, scores: Sequence[TokenScore]) -> bool:
            if job.on_piece is not None and (text or scores):
                job.on_piece(text, scores)
            return not (job.abandoned or self._stopped)

        row = Row(job.tokens, job.sampling, self._tokenizer, self.adapters.stop_ids, tell)
        return Seat(job, row, loaded.columns, loaded.prompt_model)
