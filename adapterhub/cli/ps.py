"""`adz ps`: the servers of this home."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import TerminalProgress, format_table, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.serve.lifecycle.state import ServerState

_HEADER = ("URL", "BASE", "ENGINE", "PID", "UP", "STATE", "REQUESTS", "RESIDENT")


@click.command(short_help="List the servers that run.")
@json_option
def command(as_json: bool) -> None:
    """List the servers that adz serve started from this home, how they are, how many requests
    they answered and which adapters they hold."""
    from adapterhub.serve.lifecycle.state import forget_gone, running_servers

    progress = TerminalProgress()
    for gone in forget_gone():
        progress.warn(
            f"the server of {gone.base} on port {gone.port} (process {gone.pid}) ended without "
            f"a word; its log is {gone.log}"
        )
    servers = [_described(state) for state in running_servers()]
    table = format_table(_HEADER, [_row(server) for server in servers]) if servers else ""
    print_result(servers, table or "no server runs", as_json=as_json)


def _described(state: ServerState) -> dict[str, Any]:
    from adapterhub.serve.metrics.reading import read_metrics

    started = datetime.fromisoformat(state.started)
    reading = read_metrics(state.url, state.key) if state.state in ("ready", "draining") else None
    return {
        **state.public(),
        "up_seconds": int((datetime.now(UTC) - started).total_seconds()),
        "requests": reading.requests if reading else None,
        "resident": reading.resident if reading else None,
    }


def _row(server: dict[str, Any]) -> tuple[object, ...]:
    resident = server["resident"]
    again = f" ({server['restarts']} restarts)" if server["restarts"] else ""
    return (
        server["url"],
        server["base"],
        server["engine"],
        server["pid"],
        _duration(server["up_seconds"]),
        server["state"] + again,
        "-" if server["requests"] is None else server["requests"],
        "-" if resident is None else (", ".join(resident) or "none"),
    )


def _duration(seconds: int) -> str:
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d{hours % 24}h"
    if hours:
        return f"{hours}h{minutes % 60}m"
    return f"{minutes}m{seconds % 60}s" if minutes else f"{seconds}s"
