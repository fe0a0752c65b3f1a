"""Ending servers, and finding the one that is meant."""

from __future__ import annotations

import signal

from adapterhub.errors import AdzError, unknown_name, usage_error
from adapterhub.serve.lifecycle.state import ServerState, running_servers

# What ending takes beyond the drain: the engine's own children, memory given back.
_END_SECONDS = 60.0


def choose_servers(which: str | None, *, every: bool) -> list[ServerState]:
    """The servers of this home that are meant: all, those on a port or of a base, or the only one.

    Raises AdzError where there is none, or several and nothing says which.
    """
    servers = running_servers()
    if every:
        return servers
    if which is not None:
        found = [state for state in servers if which in (str(state.port), state.base)]
        if not found:
            raise unknown_name("server", which, [n for s in servers for n in (str(s.port), s.base)])
        return found
    if not servers:
        raise usage_error("no server runs", "start one: adz serve")
    if len(servers) > 1:
        listed = ", ".join(f"{state.port} ({state.base})" for state in servers)
        raise usage_error(f"{len(servers)} servers run: {listed}", "name a port or a base")
    return servers


def stop_server(state: ServerState, *, now: bool) -> None:
    """Let the server finish what it answers and end; `now`: cut that. Returns when it has ended.

    Raises AdzError where it does not end in time.
    """
    process = state.process
    if not process.signal(signal.SIGTERM):
        return
    seconds = state.drain_seconds + _END_SECONDS
    if now:
        # The first begins the drain, the second ends it; one that comes too soon is lost.
        if process.wait(0.5):
            return
        process.signal(signal.SIGTERM)
        seconds = _END_SECONDS
    if not process.wait(seconds):
        raise AdzError(
            f"the server on port {state.port} (process {state.pid}) did not end "
            f"within {seconds:.0f} s",
            f"its log is {state.log}; kill -9 {state.pid}",
        )
