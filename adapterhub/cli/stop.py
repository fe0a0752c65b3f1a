"""`adz stop`: ends servers in order."""

from __future__ import annotations

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result


@click.command(short_help="Stop a server.")
@click.argument("which", required=False, metavar="[PORT|BASE]")
@click.option("--all", "every", is_flag=True, help="Stop every server of this home.")
@click.option("--now", is_flag=True, help="Cut what is being answered.")
@json_option
def command(which: str | None, every: bool, now: bool, as_json: bool) -> None:
    """Stop the server on PORT, those of BASE, or the only one, and return when it has ended.

    It takes no more requests, and what it is answering has the --drain-seconds of its adz serve
    to end.
    """
    from adapterhub.errors import usage_error
    from adapterhub.serve.lifecycle.state import forget_gone
    from adapterhub.serve.lifecycle.stop import choose_servers, stop_server

    if every and which is not None:
        raise usage_error(f"--all and {which} exclude each other", "give one of them")
    servers = choose_servers(which, every=every)
    progress = TerminalProgress()
    for state in servers:
        with progress.task(f"stopping {state.base} at {state.url}", None):
            stop_server(state, now=now)
    forget_gone()
    stopped = [{"port": s.port, "base": s.base, "pid": s.pid} for s in servers]
    lines = [f"stopped {s.base} on port {s.port}" for s in servers] or ["no server runs"]
    print_result({"stopped": stopped}, "\n".join(lines), as_json=as_json)
