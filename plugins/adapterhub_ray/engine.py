"""Starting Ray Serve with the replicas, and ending it."""

from __future__ import annotations

import logging
import signal
from typing import Any

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig

from adapterhub.errors import EXIT_INTERRUPTED, EXIT_OK, AdzError, usage_error
from adapterhub.home import adz_home
from adapterhub.protocols import Progress, ServeSettings
from adapterhub.ray_cluster import cluster_options, named_cluster
from adapterhub.serve.address import api_url
from adapterhub.serve.lifecycle.signals import TerminatedError, termination_raises
from adapterhub_ray.front import Front
from adapterhub_ray.replica import Replica, ReplicaSettings
from adapterhub_ray.router import AdapterRouter

_APPLICATION = "adapterhub"
# The server behind it has a queue of its own, with turns for adapters; Ray's has none.
_ONGOING = 4096
# Four times those of a batch are kept in memory; see the engines.
_KEPT = 4


class RayEngine:
    """`protocols.Engine`: a Ray of its own on this machine, or the one at RAY_ADDRESS."""

    def serve(self, settings: ServeSettings, progress: Progress) -> int:
        """Serve until Ctrl-C (130) or SIGTERM (0). Raises AdzError where no replica starts."""
        if settings.ssl_certfile is not None:
            raise usage_error("Ray Serve speaks no TLS", "put it behind what does")
        logging.getLogger("ray").setLevel(logging.ERROR)
        try:
            with (
                termination_raises(),
                progress.task(f"starting {settings.replicas} replicas on Ray", None),
            ):
                _start(settings, progress)
            # Ray takes the signals for itself while it starts, and dies of them.
            with termination_raises():
                settings.ready(api_url(settings.host, settings.port, tls=False))
                while True:
                    signal.pause()
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        except TerminatedError:
            return EXIT_OK
        finally:
            with termination_raises() as ignore_signals:
                ignore_signals()
                settings.status("draining")
                _stop()


def _start(settings: ServeSettings, progress: Progress) -> None:
    options = cluster_options(settings.replicas, progress)
    options |= {"runtime_env": {"env_vars": {"ADZ_HOME": str(adz_home())}}}
    try:
        ray.init(log_to_driver=False, logging_level="error", **options)
        serve.start(http_options={"host": settings.host, "port": settings.port})
        serve.run(_application(settings), name=_APPLICATION, route_prefix="/")
    except (RuntimeError, ConnectionError, ValueError) as error:
        raise AdzError(f"Ray Serve did not start: {_one_line(error)}", "see 'adz serve'") from error


def _application(settings: ServeSettings) -> Any:
    limits = settings.limits
    replica = ReplicaSettings(
        arguments=arguments(settings),
        home=adz_home(),
        api_key=_key(settings),
        models=_KEPT * settings.max_resident,
    )
    replicas = serve.deployment(
        Replica,
        num_replicas=settings.replicas,
        max_ongoing_requests=_ONGOING,
        health_check_period_s=5,
        graceful_shutdown_timeout_s=settings.drain_seconds,
        request_router_config=RequestRouterConfig(
            request_router_class=AdapterRouter, request_router_kwargs={"most": replica.models}
        ),
        ray_actor_options={"num_cpus": 1},
    ).bind(replica)
    return serve.deployment(
        Front, max_ongoing_requests=_ONGOING, ray_actor_options={"num_cpus": 0}
    ).bind(replicas, limits.body_bytes)


def arguments(settings: ServeSettings) -> tuple[str, ...]:
    """Those of the `adz serve` in each replica, but for where it listens and its key."""
    limits = settings.limits
    given: dict[str, object] = {
        "--engine": settings.replica_engine,
        "--data-parallel": settings.data_parallel if settings.data_parallel > 1 else None,
        "--max-rank": settings.max_rank,
        "--max-resident": settings.max_resident,
        "--max-context": settings.max_context,
        "--dtype": settings.dtype,
        "--max-body": -(-limits.body_bytes // 2**20),
        "--max-tokens": limits.max_tokens,
        "--max-requests": limits.at_once,
        "--max-requests-per-adapter": limits.adapter_at_once,
        "--max-waiting": limits.waiting,
        "--requests-per-minute": limits.requests_per_minute,
        "--drain-seconds": settings.drain_seconds,
    }
    words = [settings.base]
    for name, value in given.items():
        words += [] if value is None else [name, str(value)]
    words.append("--keys" if settings.keys else "--no-keys")
    return (*words, *(("--", *settings.extra) if settings.extra else ()))


def _key(settings: ServeSettings) -> str | None:
    """What opens every replica, beside the keys of `adz keys`."""
    return settings.api_key or (settings.own_key if settings.keys else None)


def _stop() -> None:
    if ray.is_initialized():
        serve.delete(_APPLICATION)
        if named_cluster() is None:
            serve.shutdown()
        ray.shutdown()


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next((line for line in reversed(lines) if "RuntimeError" in line), None)
    return (reason or (lines[0] if lines else type(error).__name__))[:400]
