"""vLLM's entry point: it calls `register` in each of its processes, at times more than once."""

from __future__ import annotations

from adapterhub.errors import AdzError
from adapterhub.serve.pulse import Pulse
from adapterhub_vllm.contract import check_release, vllm_release

_registered = False


def register() -> None:
    """Put our parts into this process, or end it with one line where vLLM is not as we know it.

    Inert where `adz serve` did not start vLLM.
    """
    from adapterhub_vllm.settings import read_settings

    global _registered
    settings = read_settings()
    if settings is None or _registered:
        return
    from adapterhub_vllm import (
        affinity,
        counting,
        doors,
        embeds,
        heartbeat,
        kernels,
        presets,
        serving,
        waiting,
    )

    pulse = Pulse(settings.stall_seconds)

    try:
        check_release()
        replaced = [kernels.install(), embeds.install(), waiting.install()]
        replaced += ["the meaning of `model`", "the doors of the server"]
        doors.check()
        adapters = serving.install(settings)
        affinity.install(settings.data_parallel)
        heartbeat.install(pulse)
        counting.install(pulse)
        presets.install()
        doors.install(settings.doors, adapters, pulse)
    except AdzError as error:
        raise SystemExit(f"adz: {error}") from error
    except ImportError as error:
        raise SystemExit(f"adz: this vllm is not supported: {error}") from error
    _registered = True
    from vllm.logger import init_logger

    names = ", ".join(filter(None, replaced))
    init_logger("vllm.adapterhub").info("adapterhub replaced in %s: %s", vllm_release(), names)
