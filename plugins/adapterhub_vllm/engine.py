"""The engine `vllm`: starts vLLM's OpenAI server, waits until it answers, looks after it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from adapterhub import specs
from adapterhub.errors import AdzError, usage_error
from adapterhub.manifest import BaseRecord
from adapterhub.plugins import load_plugins, open_registry
from adapterhub.protocols import Progress, Registry, ServeSettings
from adapterhub.serve.address import api_url, check_free
from adapterhub.serve.doors.settings import door_settings
from adapterhub.serve.lifecycle.ask import ask
from adapterhub.serve.lifecycle.log import bounded, set_aside
from adapterhub.serve.lifecycle.state import log_file
from adapterhub.serve.lifecycle.supervise import Supervisor
from adapterhub.serve.lifecycle.watchdog import Watchdog
from adapterhub.serve.models import servable_versions
from adapterhub_vllm.child import Child, lacks_memory
from adapterhub_vllm.contract import is_cpu_build, vllm_release
from adapterhub_vllm.doors import AT_ONCE
from adapterhub_vllm.launch import command_line, environment, room, served_dtype
from adapterhub_vllm.limits import LEGAL_RANKS, check_base, smallest_legal_rank
from adapterhub_vllm.padding import padding_note
from adapterhub_vllm.settings import ServerSettings
from adapterhub_vllm.tools import with_strict_tools

_POLL_SECONDS = 0.2
_LOOK_SECONDS = 5.0


class VllmEngine:
    """`protocols.Engine`: one child process, which holds the API server and its workers."""

    def serve(self, settings: ServeSettings, progress: Progress) -> int:
        """Serve until Ctrl-C (130) or SIGTERM (0); raises AdzError when vLLM does not start, or
        cannot be kept running."""
        check_free(settings.host, settings.port)
        settings = replace(settings, extra=with_strict_tools(settings.extra))
        registry = open_registry()
        base = registry.base(settings.base)
        check_base(base)
        on_cpu = is_cpu_build()
        largest = largest_rank(registry, base)
        # Kernels of GPUs compute what they pad.
        merges = on_cpu and settings.derivations.merges > 0
        max_rank = choose_rank(largest, settings.max_rank, merges=merges)
        dtype = served_dtype(settings.dtype, on_cpu=on_cpu)
        progress.note(padding_note(base, max_rank, largest, settings.max_resident, dtype))
        command = command_line(settings, base, max_rank, on_cpu=on_cpu)
        doors = door_settings(settings, AT_ONCE)
        server = ServerSettings(
            base.name,
            max_rank,
            room(settings.max_resident),
            doors,
            settings.data_parallel,
            settings.derivations,
            settings.stall_seconds,
        )
        variables = environment(settings, server, settings.own_key, os.environ, on_cpu=on_cpu)
        log = log_file(settings.port)
        set_aside(log)
        url = api_url(settings.host, settings.port, tls=settings.ssl_certfile is not None)

        def start() -> VllmProcess:
            return VllmProcess(Child(command, variables, log), settings, url, progress)

        with bounded(log):
            return Supervisor(start, url, settings, progress).run()


class VllmProcess:
    """A vLLM that was started; `supervise.EngineProcess`."""

    def __init__(self, child: Child, settings: ServeSettings, url: str, progress: Progress) -> None:
        self._child = child
        self._settings = settings
        self._url = url
        self._progress = progress
        self.drain: Callable[[float], None] = child.drain
        self.stop: Callable[[], None] = child.stop

    def wait_until_ready(self) -> None:
        """Return when it lists its models; raises AdzError when it ended before, or runs without
        our plugin."""
        with self._progress.task(f"starting {vllm_release()}", None) as task:
            while True:
                if self._child.exit_code() is not None:
                    # Somebody was quicker: that is a better reason than what vLLM says.
                    check_free(self._settings.host, self._settings.port)
                    raise self._failed_start()
                models = self._models()
                if models is not None:
                    break
                task.advance(0, self._child.stage())
                time.sleep(_POLL_SECONDS)
        # Where vLLM could not import our plugin it goes on without it.
        if any(card.get("owned_by") != "adapterhub" for card in models):
            raise AdzError(
                "vLLM started without adapterhub's plugin and was stopped",
                f"install adapterhub again beside it, and see {self._child.log}",
            )
        replaced = self._child.replaced()
        if replaced:
            self._progress.note(replaced)

    def wait(self) -> AdzError:
        """Wait until it ends or hangs, and say why."""
        server = self._url.removesuffix("/v1")
        watchdog = Watchdog(server, self._settings.stall_seconds)
        while not self._child.wait(_LOOK_SECONDS):
            if reason := watchdog.look():
                return AdzError(f"vLLM hangs: {reason}", f"its log is {self._child.log}")
        return self._ended("ended")

    def _models(self) -> list[dict[str, Any]] | None:
        """The models that the server lists, None while it does not answer."""
        content = ask(f"{self._url}/models", self._settings.own_key)
        if content is None:
            return None
        try:
            data: list[dict[str, Any]] = json.loads(content)["data"]
        except ValueError:
            return None
        return data

    def _failed_start(self) -> AdzError:
        error = self._ended("did not start")
        if not lacks_memory(error.message):
            return error
        cache = "VLLM_CPU_KVCACHE_SPACE=1 (GiB)" if is_cpu_build() else "--gpu-memory-utilization"
        return AdzError(
            error.message,
            f"it takes less memory with a smaller --max-context, --max-resident, --max-rank or "
            f"{cache}; {error.hint}",
        )

    def _ended(self, word: str) -> AdzError:
        return AdzError(f"vLLM {word}: {self._child.reason()}", f"its log is {self._child.log}")


def choose_rank(largest: int, asked: int | None, *, merges: bool) -> int:
    """The rank that vLLM pads every slot to: the smallest legal one that holds `asked`, or the
    `largest` adapter; with `merges`, and where there is such a rank, two like it together."""
    if asked is not None:
        if not 1 <= asked <= LEGAL_RANKS[-1]:
            raise usage_error(f"--max-rank {asked}: vLLM takes 1 to {LEGAL_RANKS[-1]}")
        return smallest_legal_rank([asked])
    if not largest:
        return smallest_legal_rank([])
    return smallest_legal_rank([largest, 2 * largest] if merges else [largest])


def largest_rank(registry: Registry, base: BaseRecord) -> int:
    """The largest rank among the versions that vLLM can serve, 0 where there is none."""
    methods = load_plugins().components(specs.Method)
    served = (_largest_rank(registry, base, name) for name, m in methods.items() if m.vllm)
    return max((rank for rank in served if rank is not None), default=0)


def _largest_rank(registry: Registry, base: BaseRecord, method: str) -> int | None:
    """The largest rank of a method's adapters that vLLM can serve; None where there is none."""
    for version in servable_versions(registry, base, method=method, sort="rank", reverse=True):
        rank = int(version.manifest.adapter.get("rank") or 0)
        if rank <= LEGAL_RANKS[-1]:
            return rank
    return None
