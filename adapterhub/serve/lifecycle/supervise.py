"""Looks after an engine that runs as a child: started, started again when it died, drained."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Protocol

from adapterhub.errors import EXIT_INTERRUPTED, EXIT_OK, AdzError
from adapterhub.protocols import Progress, ServeSettings
from adapterhub.serve.lifecycle.signals import TerminatedError, termination_raises


class EngineProcess(Protocol):
    """A process that was started and serves, or will."""

    def wait_until_ready(self) -> None:
        """Return when it answers; raise AdzError, with the reason, when it ended before."""

    def wait(self) -> AdzError:
        """Wait until it ends or hangs, and say why."""

    def drain(self, seconds: float) -> None:
        """Let it finish what it answers, nothing new, and end; return after so long anyway."""

    def stop(self) -> None:
        """End it with all that it started; harmless where it has ended."""


@dataclass(frozen=True, slots=True)
class BackOff:
    """Seconds before the first restart, which double up to `longest`; after `healthy` seconds of
    work it begins again. `most` failures in a row are the end."""

    first: float = 1.0
    longest: float = 60.0
    healthy: float = 60.0
    most: int = 8

    def delay(self, failures: int) -> float:
        """The wait after that many failures in a row."""
        return min(self.longest, self.first * 2.0 ** (failures - 1))


class Supervisor:
    """Runs what `start` starts until a signal, or until it cannot be kept running."""

    def __init__(
        self,
        start: Callable[[], EngineProcess],
        url: str,
        settings: ServeSettings,
        progress: Progress,
        back_off: BackOff | None = None,
    ) -> None:
        self._start = start
        self._url = url
        self._settings = settings
        self._progress = progress
        self._back_off = back_off or BackOff()
        self._process: EngineProcess | None = None
        self._ready = False

    def run(self) -> int:
        """Serve until Ctrl-C (130) or SIGTERM (0); a second signal cuts what is being answered.

        Raises AdzError when the engine does not start, and when it died: at once without
        restarts, else after too many failures in a row.
        """
        with termination_raises() as ignore_signals:
            try:
                raise self._keep_running()
            except (KeyboardInterrupt, TerminatedError) as stop:
                self._drain()
                return EXIT_OK if isinstance(stop, TerminatedError) else EXIT_INTERRUPTED
            finally:
                ignore_signals()
                if self._process is not None:
                    self._process.stop()

    def _keep_running(self) -> AdzError:
        """Why it cannot be kept running."""
        failures = 0
        while True:
            error, seconds = self._run_once()
            self._ready = False
            if seconds >= self._back_off.healthy:
                failures = 0
            failures += 1
            if not self._settings.restart:
                return error
            if failures >= self._back_off.most:
                what = f"{error.message}: given up after {failures} failures in a row"
                return AdzError(what, error.hint)
            delay = self._back_off.delay(failures)
            self._progress.warn(f"{error}; starting again in {delay:g} s")
            self._settings.status("restarting")
            if self._process is not None:
                self._process.stop()
            sleep(delay)

    def _run_once(self) -> tuple[AdzError, float]:
        """Why the engine ended, and how many seconds it had answered."""
        restarting = self._process is not None
        self._process = self._start()
        try:
            self._process.wait_until_ready()
        except AdzError as error:
            # What never worked will not do so later: it is told at once.
            if not restarting:
                raise
            return error, 0.0
        self._ready = True
        self._settings.status("ready")
        if not restarting:
            self._settings.ready(self._url)
        else:
            self._progress.note(f"the engine answers again at {self._url}")
        since = monotonic()
        return self._process.wait(), monotonic() - since

    def _drain(self) -> None:
        with suppress(KeyboardInterrupt, TerminatedError):
            self._settings.status("draining")
            if self._process is not None and self._ready:
                self._process.drain(self._settings.drain_seconds)
