"""`adz top`: what a server does, live."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import format_table, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.serve.metrics.rates import VersionRates

_HEADER = ("VERSION", "REQ/S", "TOK/S", "TTFT P50", "P95", "IN FLIGHT", "WAITING", "RESIDENT",
           "REQUESTS", "FAILED")  # fmt: skip


@click.command(short_help="Show what a server does, live.")
@click.argument("which", required=False, metavar="[PORT|BASE]")
@click.option("--url", help="A server elsewhere, such as http://server:8000/v1.")
@click.option("--api-key", envvar="ADZ_API_KEY", help="With --url: a key that opens everything.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Print the table once, over one interval.")
@json_option
def command(
    which: str | None,
    url: str | None,
    api_key: str | None,
    interval: float,
    once: bool,
    as_json: bool,
) -> None:
    """Show, for each version that the server on PORT or of BASE (by default the only one)
    answered with: requests and tokens a second over the last interval, time to first token over
    the last minute, requests in flight and waiting, and where the version lies.

    Off a terminal, and with --json, it prints once.
    """
    import sys

    from adapterhub.errors import usage_error
    from adapterhub.serve.lifecycle.stop import choose_servers

    if url is not None and which is not None:
        raise usage_error(f"--url and {which} exclude each other", "give one of them")
    if url is None:
        servers = choose_servers(which, every=False)
        if len(servers) > 1:
            ports = ", ".join(str(state.port) for state in servers)
            raise usage_error(f"{which} is served on several ports: {ports}", "name a port")
        url, api_key = servers[0].url, servers[0].key
    look = _looker(url, api_key or "")
    look()
    time.sleep(interval)
    if once or as_json or not sys.stdout.isatty():
        rates = look()
        rows = [_row(version) for version in rates]
        value = {"url": url, "versions": [_values(version) for version in rates]}
        print_result(value, format_table(_HEADER, rows), as_json=as_json)
        return
    _show(look, url, interval)


def _looker(url: str, key: str) -> Callable[[], list[VersionRates]]:
    """A function that looks once more, and gives the rates since it looked before."""
    from adapterhub.errors import AdzError
    from adapterhub.serve.metrics.rates import History
    from adapterhub.serve.metrics.reading import read_metrics

    history = History()

    def look() -> list[VersionRates]:
        reading = read_metrics(url, key)
        if reading is None:
            raise AdzError(f"no figures come from {url}", "is it there, and is the key right?")
        return history.add(reading)

    return look


def _show(look: Callable[[], list[VersionRates]], url: str, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    def table() -> Text:
        rows = [_row(version) for version in look()]
        return Text(f"{url}, every {interval:g} s; Ctrl-C ends\n\n{format_table(_HEADER, rows)}")

    try:
        with Live(table(), console=Console(), screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(interval)
                live.update(table(), refresh=True)
    except KeyboardInterrupt:
        return


def _row(rates: VersionRates) -> tuple[object, ...]:
    figures = rates.figures
    return (
        rates.version or "(none)",
        round(rates.requests_per_second, 2),
        round(rates.tokens_per_second, 1),
        _seconds(rates.first_token_p50),
        _seconds(rates.first_token_p95),
        figures.in_flight,
        figures.waiting,
        figures.tier or "-",
        figures.requests,
        figures.refused,
    )


def _values(rates: VersionRates) -> dict[str, Any]:
    figures = rates.figures
    return {
        "version": rates.version,
        "requests_per_second": rates.requests_per_second,
        "tokens_per_second": rates.tokens_per_second,
        "first_token_p50": rates.first_token_p50,
        "first_token_p95": rates.first_token_p95,
        "in_flight": figures.in_flight,
        "waiting": figures.waiting,
        "resident": figures.tier or None,
        "requests": figures.requests,
        "failed": figures.refused,
        "prompt_tokens": figures.prompt_tokens,
        "generated_tokens": figures.generated_tokens,
    }


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"
