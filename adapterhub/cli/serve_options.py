"""The options of `adz serve` for one server, and the settings that they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from adapterhub.protocols import Derivations, Limits, ServeSettings

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path)

_OPTIONS = (
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option(
        "--port",
        type=click.IntRange(1, 65535),
        default=8000,
        show_default=True,
        help="Port to listen on.",
    ),
    click.option(
        "--api-key",
        envvar=["ADZ_SERVE_API_KEY", "ADZ_API_KEY"],
        help="A key that opens everything, beside those of adz keys.",
    ),
    click.option(
        "--keys/--no-keys",
        default=None,
        help="Ask every client for a key, or none; by default as soon as there is a key, and "
        "always where other machines reach --host.",
    ),
    click.option("--ssl-certfile", type=_FILE, help="Certificate chain (PEM): serve https."),
    click.option("--ssl-keyfile", type=_FILE, help="The certificate's private key (PEM)."),
    click.option(
        "--max-rank", type=click.IntRange(1), help="Largest LoRA rank; by default the registry's."
    ),
    click.option(
        "--max-resident",
        type=click.IntRange(1),
        default=8,
        show_default=True,
        help="Adapters that answer in one batch.",
    ),
    click.option(
        "--max-context", type=click.IntRange(16), help="Tokens of prompt and answer together."
    ),
    click.option("--dtype", default="auto", show_default=True, help="How the base is held."),
    click.option("--engine", help="What answers; by default vLLM where it is installed."),
    click.option(
        "--max-body",
        type=click.IntRange(1),
        default=8,
        show_default=True,
        help="MiB of the largest request.",
    ),
    click.option("--max-tokens", type=click.IntRange(1), help="Most tokens that a request gets."),
    click.option(
        "--max-requests",
        type=click.IntRange(1),
        help="Requests in the engine at once, others wait; by default vLLM 256, transformers 32.",
    ),
    click.option(
        "--max-requests-per-adapter",
        type=click.IntRange(1),
        help="Of these for one adapter; by default all, while no other adapter waits.",
    ),
    click.option(
        "--max-waiting",
        type=click.IntRange(0),
        default=256,
        show_default=True,
        help="Requests that wait for one adapter; one more is told to come again.",
    ),
    click.option(
        "--requests-per-minute", type=click.IntRange(1), help="Requests a minute for one adapter."
    ),
    click.option(
        "--detach/--no-detach",
        default=False,
        help="Start in the background, and return when it answers.",
    ),
    click.option(
        "--drain-seconds",
        type=click.FloatRange(0),
        default=30.0,
        show_default=True,
        help="When it is stopped: how long what is being answered may take to end.",
    ),
    click.option(
        "--restart/--no-restart",
        default=True,
        show_default=True,
        help="Start an engine again that died or hangs.",
    ),
    click.option(
        "--stall-seconds",
        type=click.FloatRange(0),
        default=300.0,
        show_default=True,
        help="An engine hangs that finishes no step for so long while requests wait (vLLM only); "
        "0: never.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="How the log of requests is written.",
    ),
    click.option(
        "--request-merges/--no-request-merges",
        "merging",
        default=True,
        help="Merge for a request whose model is an expression, such as sql*0.7+french*0.3.",
    ),
    click.option(
        "--merges-kept",
        type=click.IntRange(1),
        default=32,
        show_default=True,
        help="Of these merges in the registry; the least recently used go first.",
    ),
    click.option(
        "--merge-error",
        type=click.FloatRange(0),
        default=0.05,
        show_default=True,
        help="Most that such a merge may lose at this server's rank (relative Frobenius error).",
    ),
    click.option(
        "--convert/--no-convert",
        "converting",
        default=True,
        help="Serve what the engine does not know as a LoRA, converted at its first request.",
    ),
    click.option(
        "--convert-error",
        type=click.FloatRange(0),
        default=0.05,
        show_default=True,
        help="Most that a conversion may lose.",
    ),
)


def server_options(function: F) -> F:
    """Add these options to a command, as keyword arguments."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def serve_settings(
    base: str,
    options: Mapping[str, Any],
    extra: tuple[str, ...],
    *,
    keyed: bool,
    ready: Callable[[str], None],
) -> ServeSettings:
    """What the options say, those of growing among them. keyed: a client needs a key; extra: the
    engine's own options."""
    from adapterhub.protocols import ServeSettings
    from adapterhub.serve.lifecycle.state import requests_log_file

    as_they_are = (
        "host", "port", "api_key", "ssl_certfile", "ssl_keyfile", "max_rank", "max_resident",
        "max_context", "dtype", "data_parallel", "replicas", "drain_seconds", "restart",
        "stall_seconds", "log_format",
    )  # fmt: skip
    return ServeSettings(
        base=base,
        keys=keyed or options["keys"],
        extra=extra,
        # With --ray, --engine says what each replica runs.
        replica_engine=options["engine"] if options["ray"] else None,
        limits=_limits(options),
        derivations=_derivations(options),
        requests_log=requests_log_file(options["port"]),
        ready=ready,
        **{name: options[name] for name in as_they_are},
    )


def _limits(options: Mapping[str, Any]) -> Limits:
    from adapterhub.protocols import Limits

    return Limits(
        body_bytes=options["max_body"] * 2**20,
        max_tokens=options["max_tokens"],
        at_once=options["max_requests"],
        adapter_at_once=options["max_requests_per_adapter"],
        waiting=options["max_waiting"],
        requests_per_minute=options["requests_per_minute"],
    )


def _derivations(options: Mapping[str, Any]) -> Derivations:
    from adapterhub.protocols import Derivations

    return Derivations(
        merges=options["merges_kept"] if options["merging"] else 0,
        merge_error=options["merge_error"],
        conversions=options["converting"],
        convert_error=options["convert_error"],
    )
