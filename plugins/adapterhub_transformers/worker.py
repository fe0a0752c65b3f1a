"""The one thread that runs the model. Requests that wait for the same version share a batch."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any

from adapterhub.generate import Continuation, Sampling, generate, stop_tokens
from adapterhub.manifest import BaseRecord, Version
from adapterhub.models import load_adapter
from adapterhub.protocols import Registry
from adapterhub.serve.hold import Hold
from adapterhub.serve.metrics import Residency

LARGEST_BATCH = 16
"""Requests that are answered together."""


def _ignore(text: str) -> None:
    pass


@dataclass(slots=True, eq=False)
class Job:
    """One prompt. `on_text` is called in the worker's thread with each new piece of text."""

    version: Version | None
    tokens: Sequence[int]
    sampling: Sampling
    on_text: Callable[[str], None] = _ignore
    done: Future[Continuation] = field(default_factory=Future)
    abandoned: bool = False

    @property
    def model(self) -> str:
        """What jobs of one batch have in common: a digest, so that aliases may move."""
        return self.version.digest if self.version else ""

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self.abandoned = True
        self.done.cancel()


class Worker:
    """Holds the base and at most `max_resident` adapters, the least recently used go first."""

    def __init__(
        self,
        registry: Registry,
        base: BaseRecord,
        model: Any,
        tokenizer: Any,
        *,
        max_resident: int,
        residency: Residency | None = None,
    ) -> None:
        self._registry = registry
        self._base = base
        self._model = model
        self._tokenizer = tokenizer
        self._stop_ids = stop_tokens(model, tokenizer)
        self._max_resident = max_resident
        self._residency = residency or Residency()
        self._resident: OrderedDict[str, tuple[str, Any]] = OrderedDict()
        self._hold = Hold("transformers")
        self._jobs: list[Job] = []
        self._changed = Condition()
        self._stopped = False
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
        """End the running batch at its next token, drop what waits, and end the thread."""
        with self._changed:
            self._stopped = True
            for job in self._jobs:
                job.abandon()
            self._jobs.clear()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next_batch():
            running = [job for job in batch if job.done.set_running_or_notify_cancel()]
            if running:
                self._answer(running)

    def _next_batch(self) -> list[Job]:
        """The oldest job and those that want the same model; nothing when it is time to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._stopped)
            if self._stopped:
                return []
            model = self._jobs[0].model
            batch = [job for job in self._jobs if job.model == model][:LARGEST_BATCH]
            self._jobs = [job for job in self._jobs if job not in batch]
            return batch

    def _answer(self, jobs: list[Job]) -> None:
        def tell(row: int, text: str) -> bool:
            job = jobs[row]
            if text:
                job.on_text(text)
            return not (job.abandoned or self._stopped)

        try:
            answers = generate(
                self._model_of(jobs[0].version),
                self._tokenizer,
                [job.tokens for job in jobs],
                [job.sampling for job in jobs],
                stop_ids=self._stop_ids,
                on_text=tell,
            )
        # Whatever it is belongs to these requests; the thread has others to answer.
        except Exception as error:
            for job in jobs:
                job.done.set_exception(error)
            return
        for job, answer in zip(jobs, answers, strict=True):
            job.done.set_result(answer)

    def _model_of(self, version: Version | None) -> Any:
        if version is None:
            return self._model
        self._hold.add(self._registry, version)
        _, model = self._resident.pop(version.digest, (None, None))
        if model is None:
            while len(self._resident) >= self._max_resident:
                _, (evicted, _) = self._resident.popitem(last=False)
                self._residency.evicted(evicted)
            begun = time.monotonic()
            self._registry.admit(version, self._base)
            model = load_adapter(self._model, version, self._registry.path(version))
            self._residency.loaded(version.reference, time.monotonic() - begun)
        self._resident[version.digest] = (version.reference, model)
        return model
