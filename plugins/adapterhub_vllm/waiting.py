"""vLLM's processes sleep while they wait for each other, on a CPU.

Between the engine and its worker vLLM spins for a second after each message, so that during
decoding the engine burns a core that the worker's threads compute on.
"""

from __future__ import annotations

import inspect
import time
from typing import Any

_PARAMETERS = {
    "__init__": ("self", "is_reader", "context", "notify_address", "busy_loop_s"),
    "wait": ("self", "timeout_ms"),
}
# A write sends a notice, which vLLM's sockets may drop when they come one upon the other.
_LONGEST_MS = 2


def install() -> str | None:
    """Have readers wait for the notice that a write sends; return what was replaced.

    Nothing happens on a GPU, where a spinning core is not missed, and where this vLLM waits in
    another way: that costs time, no answer.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return None
    try:
        from vllm.distributed.device_communicators.shm_broadcast import SpinCondition
    except ImportError:
        return None
    for name, parameters in _PARAMETERS.items():
        if tuple(inspect.signature(getattr(SpinCondition, name)).parameters) != parameters:
            return None
    SpinCondition.wait = _sleeping(SpinCondition.wait)
    return "waits between processes"


def _sleeping(original: Any) -> Any:
    import zmq

    def wait(self: Any, timeout_ms: int | None = None) -> None:
        """As vLLM's, which gives way and comes back at once for `busy_loop_s` after a read."""
        if time.monotonic() > self.last_read + self.busy_loop_s:
            original(self, timeout_ms)
        elif self.local_notify_socket in dict(self.poller.poll(timeout=_LONGEST_MS)):
            self.local_notify_socket.recv(flags=zmq.NOBLOCK, copy=False)

    return wait
