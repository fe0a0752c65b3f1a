"""`adz serve`: a base and all of its adapters over the OpenAI API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result
from adapterhub.cli.serve_growing import check_growing, growing_options, print_manifest

if TYPE_CHECKING:
    from adapterhub.manifest import BaseRecord

_FILE = click.Path(path_type=Path)
_ARGUMENTS = "adapterhub.serve.arguments"


class _ServeCommand(click.Command):
    """Keeps the words that it was called with, for the same call in the background."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


@click.command(cls=_ServeCommand, short_help="Serve a base and its adapters over the OpenAI API.")
@click.argument("base", required=False)
@click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="[-- ENGINE OPTIONS...]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on.",
)
@click.option(
    "--api-key",
    envvar=["ADZ_SERVE_API_KEY", "ADZ_API_KEY"],
    help="A key that opens everything, beside those of adz keys.",
)
@click.option(
    "--keys/--no-keys",
    default=None,
    help="Ask every client for a key, or none; by default as soon as there is a key, and "
    "always where other machines reach --host.",
)
@click.option("--ssl-certfile", type=_FILE, help="Certificate chain (PEM): serve https.")
@click.option("--ssl-keyfile", type=_FILE, help="The certificate's private key (PEM).")
@click.option(
    "--max-rank", type=click.IntRange(1), help="Largest LoRA rank; by default the registry's."
)
@click.option(
    "--max-resident",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Adapters that answer in one batch.",
)
@click.option(
    "--max-context", type=click.IntRange(16), help="Tokens of prompt and answer together."
)
@click.option("--dtype", default="auto", show_default=True, help="How the base is held.")
@click.option("--engine", help="What answers; by default vLLM where it is installed.")
@click.option(
    "--max-body",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="MiB of the largest request.",
)
@click.option("--max-tokens", type=click.IntRange(1), help="Most tokens that a request gets.")
@click.option(
    "--max-requests",
    type=click.IntRange(1),
    help="Requests in the engine at once, others wait; by default vLLM 256, transformers 32.",
)
@click.option(
    "--max-requests-per-adapter",
    type=click.IntRange(1),
    help="Of these for one adapter; by default all, while no other adapter waits.",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(0),
    default=256,
    show_default=True,
    help="Requests that wait for one adapter; one more is told to come again.",
)
@click.option(
    "--requests-per-minute", type=click.IntRange(1), help="Requests a minute for one adapter."
)
@click.option(
    "--detach/--no-detach",
    default=False,
    help="Start in the background, and return when it answers.",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="When it is stopped: how long what is being answered may take to end.",
)
@click.option(
    "--restart/--no-restart",
    default=True,
    show_default=True,
    help="Start an engine again that died.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the log of requests is written.",
)
@click.option(
    "--request-merges/--no-request-merges",
    "merging",
    default=True,
    help="Merge for a request whose model is an expression, such as sql*0.7+french*0.3.",
)
@click.option(
    "--merges-kept",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Of these merges in the registry; the least recently used go first.",
)
@click.option(
    "--merge-error",
    type=click.FloatRange(0),
    default=0.05,
    show_default=True,
    help="Most that such a merge may lose at this server's rank (relative Frobenius error).",
)
@click.option(
    "--convert/--no-convert",
    "converting",
    default=True,
    help="Serve what the engine does not know as a LoRA, converted at its first request.",
)
@click.option(
    "--convert-error",
    type=click.FloatRange(0),
    default=0.05,
    show_default=True,
    help="Most that a conversion may lose.",
)
@growing_options
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    base: str | None,
    extra: tuple[str, ...],
    host: str,
    port: int,
    api_key: str | None,
    keys: bool | None,
    ssl_certfile: Path | None,
    ssl_keyfile: Path | None,
    max_rank: int | None,
    max_resident: int,
    max_context: int | None,
    dtype: str,
    engine: str | None,
    max_body: int,
    max_tokens: int | None,
    max_requests: int | None,
    max_requests_per_adapter: int | None,
    max_waiting: int,
    requests_per_minute: int | None,
    detach: bool,
    drain_seconds: float,
    restart: bool,
    log_format: Literal["text", "json"],
    merging: bool,
    merges_kept: int,
    merge_error: float,
    converting: bool,
    convert_error: float,
    as_json: bool,
    **growing: Any,
) -> int:
    """Serve BASE (by default the only one) and every adapter of it that is in the registry,
    also those committed later. Each answers under its reference as the request's `model`.

    What stands behind -- goes to the engine's own command line. Ctrl-C or adz stop end the server
    when it has answered what it was asked; a second Ctrl-C at once.
    """
    from adapterhub.bases.choose import choose_base
    from adapterhub.bases.verify import verify_base
    from adapterhub.errors import EXIT_OK, usage_error
    from adapterhub.plugins import open_registry
    from adapterhub.protocols import Derivations, Limits, ServeSettings
    from adapterhub.serve import engines
    from adapterhub.serve.address import check_free
    from adapterhub.serve.doors.certificate import check_certificate
    from adapterhub.serve.doors.settings import needs_key
    from adapterhub.serve.lifecycle.state import requests_log_file, stated
    from adapterhub.serve.models import template_notes
    from adapterhub.serve.quantized import quantizer_notes

    # `adz serve -- --flag` names no base: click hands the flag over as BASE.
    if base is not None and base.startswith("-"):
        extra = (base, *extra)
        base = None
    if extra and not extra[0].startswith("-"):
        raise usage_error(f"{extra[0]!r} is one argument too many", "see adz serve --help")
    check_growing(growing)
    if growing["manifest"]:
        record = choose_base(open_registry(), base)
        return print_manifest(record, growing["manifest"], growing, extra, as_json=as_json)
    progress = TerminalProgress()
    check_free(host, port)
    keyed = needs_key(host, api_key, keys, progress)
    check_certificate(ssl_certfile, ssl_keyfile)
    registry = open_registry()
    record = choose_base(registry, base)
    replica_engine, engine = (engine, "ray") if growing["ray"] else (None, engine)
    engine_name = engines.find_engine(engine).name
    verify_base(record)
    for line in quantizer_notes(registry, record):
        progress.note(line)
    for line in template_notes(registry, record):
        progress.warn(line)
    announce = partial(_announce, record, needs_key=keyed, as_json=as_json)
    if detach:
        _start_in_background(context, record, port, announce, progress)
        return EXIT_OK
    implementation = engines.choose_engine(engine)
    settings = ServeSettings(
        base=record.name,
        host=host,
        port=port,
        api_key=api_key,
        keys=keyed or keys,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
        max_rank=max_rank,
        max_resident=max_resident,
        max_context=max_context,
        dtype=dtype,
        extra=extra,
        data_parallel=growing["data_parallel"],
        replicas=growing["replicas"],
        replica_engine=replica_engine,
        limits=Limits(
            body_bytes=max_body * 2**20,
            max_tokens=max_tokens,
            at_once=max_requests,
            adapter_at_once=max_requests_per_adapter,
            waiting=max_waiting,
            requests_per_minute=requests_per_minute,
        ),
        drain_seconds=drain_seconds,
        restart=restart,
        requests_log=requests_log_file(port),
        log_format=log_format,
        derivations=Derivations(
            merges=merges_kept if merging else 0,
            merge_error=merge_error,
            conversions=converting,
            convert_error=convert_error,
        ),
        ready=announce,
    )
    with stated(settings, engine_name) as state:
        return implementation.serve(replace(settings, status=state.change), progress)


def _start_in_background(
    context: click.Context,
    record: BaseRecord,
    port: int,
    announce: Callable[..., None],
    progress: TerminalProgress,
) -> None:
    from adapterhub.serve.lifecycle.detach import start_detached
    from adapterhub.serve.lifecycle.state import log_file

    given: list[str] = context.meta[_ARGUMENTS]
    place = given.index("--") if "--" in given else len(given)
    ours = [word for word in given[:place] if word != "--detach"]
    # What was inferred or asked for here is not asked for again.
    if context.params["base"] != record.name:
        ours = [record.name, *ours]
    with progress.task(f"starting in the background, its log is {log_file(port)}", None):
        state = start_detached([*ours, "--no-detach", *given[place:]], port)
    announce(state.url, more={"pid": state.pid, "log": state.log})


def _announce(
    record: BaseRecord,
    url: str,
    *,
    needs_key: bool,
    as_json: bool,
    more: Mapping[str, Any] | None = None,
) -> None:
    from adapterhub.plugins import open_registry
    from adapterhub.serve.examples import example_requests
    from adapterhub.serve.models import servable_versions

    found = next(servable_versions(open_registry(), record, sort="name", reverse=True), None)
    model = found.name if found else record.name
    result = {"url": url, "base": record.name, "example_model": model, **(more or {})}
    lines = [
        f"{record.name} answers at {url}, and so does every adapter of it, for example {model}:",
        *(f"  {line}" for line in example_requests(url, model, needs_key=needs_key)),
    ]
    if more:
        lines.append(f"It runs in the background: adz ps, adz stop; its log is {more['log']}")
    print_result(result, "\n".join(lines), as_json=as_json)
