"""The engine `vllm`: starts vLLM's OpenAI server, waits until it answers, watches it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from adapterhub import specs
from adapterhub.errors import EXIT_INTERRUPTED, EXIT_OK, AdzError, usage_error
from adapterhub.home import adz_home
from adapterhub.manifest import BaseRecord
from adapterhub.plugins import load_plugins, open_registry
from adapterhub.protocols import Progress, Registry, ServeSettings
from adapterhub.serve.address import api_url, check_free
from adapterhub.serve.doors.settings import door_settings
from adapterhub.serve.models import servable_versions
from adapterhub_vllm.child import Child
from adapterhub_vllm.contract import is_cpu_build, vllm_release
from adapterhub_vllm.doors import AT_ONCE
from adapterhub_vllm.launch import command_line, environment
from adapterhub_vllm.limits import LEGAL_RANKS, smallest_legal_rank
from adapterhub_vllm.settings import ServerSettings

_POLL_SECONDS = 0.2


class _TerminatedError(Exception):
    """SIGTERM arrived."""


class VllmEngine:
    """`protocols.Engine`: one child process, which holds the API server and its workers."""

    def serve(self, settings: ServeSettings, progress: Progress) -> int:
        """Serve until Ctrl-C (130) or SIGTERM (0); raises AdzError when vLLM ends by itself."""
        check_free(settings.host, settings.port)
        registry = open_registry()
        base = registry.base(settings.base)
        max_rank = choose_rank(registry, base, settings.max_rank)
        on_cpu = is_cpu_build()
        command = command_line(settings, base, max_rank, on_cpu=on_cpu)
        # For our own question whether it answers yet; it ends with this server.
        own_key = secrets.token_urlsafe(32)
        doors = door_settings(settings, AT_ONCE, own_key)
        server = ServerSettings(base.name, max_rank, doors)
        variables = environment(settings, server, own_key, os.environ, on_cpu=on_cpu)
        log = adz_home() / "serve" / f"{settings.port}.log"
        with _sigterm_raises():
            child = Child(command, variables, log)
            try:
                url = api_url(settings.host, settings.port, tls=settings.ssl_certfile is not None)
                self._wait_until_ready(child, url, own_key, progress)
                settings.ready(url)
                child.wait()
            except KeyboardInterrupt:
                return EXIT_INTERRUPTED
            except _TerminatedError:
                return EXIT_OK
            finally:
                child.stop()
        raise _ended(child, "ended")

    def _wait_until_ready(self, child: Child, url: str, key: str, progress: Progress) -> None:
        with progress.task(f"starting {vllm_release()}", None) as task:
            while True:
                if child.exit_code() is not None:
                    raise _ended(child, "did not start")
                models = _ask(f"{url}/models", key)
                if models is not None:
                    break
                task.advance(0, child.stage())
                time.sleep(_POLL_SECONDS)
        # Where vLLM could not import our plugin it goes on without it.
        if any(card.get("owned_by") != "adapterhub" for card in models):
            raise AdzError(
                "vLLM started without adapterhub's plugin and was stopped",
                f"install adapterhub again beside it, and see {child.log}",
            )


def choose_rank(registry: Registry, base: BaseRecord, asked: int | None) -> int:
    """The rank that vLLM pads every slot to: the smallest legal one that holds `asked`, or the
    largest adapter that it can serve."""
    if asked is not None:
        if not 1 <= asked <= LEGAL_RANKS[-1]:
            raise usage_error(f"--max-rank {asked}: vLLM takes 1 to {LEGAL_RANKS[-1]}")
        return smallest_legal_rank([asked])
    methods = load_plugins().components(specs.Method)
    served = (_largest_rank(registry, base, name) for name, m in methods.items() if m.vllm)
    return smallest_legal_rank(rank for rank in served if rank is not None)


def _largest_rank(registry: Registry, base: BaseRecord, method: str) -> int | None:
    """The largest rank of a method's adapters that vLLM can serve; None where there is none."""
    for version in servable_versions(registry, base, method=method, sort="rank", reverse=True):
        rank = int(version.manifest.adapter.get("rank") or 0)
        if rank <= LEGAL_RANKS[-1]:
            return rank
    return None


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Within the block SIGTERM raises _TerminatedError, where this is the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        # Once is enough: a second one must not interrupt the stopping of vLLM.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise _TerminatedError

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _ask(url: str, key: str) -> list[dict[str, Any]] | None:
    """The models that the server lists, None while it does not answer."""
    request = urllib.request.Request(url)  # noqa: S310
    request.add_header("Authorization", f"Bearer {key}")
    # Our own child on this machine, whose certificate names another host.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    try:
        with opener.open(request, timeout=10) as response:
            data: list[dict[str, Any]] = json.load(response)["data"]
            return data
    except (OSError, ValueError, urllib.error.URLError):
        return None


def _ended(child: Child, word: str) -> AdzError:
    return AdzError(f"vLLM {word}: {child.reason()}", f"its log is {child.log}")
