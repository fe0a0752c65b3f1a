"""`adz serve`: a base and all of its adapters over the OpenAI API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.manifest import BaseRecord

_FILE = click.Path(path_type=Path)


@click.command(short_help="Serve a base and its adapters over the OpenAI API.")
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
@json_option
def command(
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
    as_json: bool,
) -> int:
    """Serve BASE (by default the only one) and every adapter of it that is in the registry,
    also those committed later. Each answers under its reference as the request's `model`.

    What stands behind -- goes to the engine's own command line. Ctrl-C stops the server.
    """
    from adapterhub.bases.choose import choose_base
    from adapterhub.bases.verify import verify_base
    from adapterhub.errors import usage_error
    from adapterhub.plugins import open_registry
    from adapterhub.protocols import Limits, ServeSettings
    from adapterhub.serve import engines
    from adapterhub.serve.address import check_free
    from adapterhub.serve.doors.certificate import check_certificate
    from adapterhub.serve.doors.settings import needs_key
    from adapterhub.serve.models import template_notes
    from adapterhub.serve.quantized import quantizer_notes

    # `adz serve -- --flag` names no base: click hands the flag over as BASE.
    if base is not None and base.startswith("-"):
        extra = (base, *extra)
        base = None
    if extra and not extra[0].startswith("-"):
        raise usage_error(f"{extra[0]!r} is one argument too many", "see adz serve --help")
    progress = TerminalProgress()
    check_free(host, port)
    keyed = needs_key(host, api_key, keys, progress)
    check_certificate(ssl_certfile, ssl_keyfile)
    registry = open_registry()
    record = choose_base(registry, base)
    implementation = engines.choose_engine(engine)
    verify_base(record)
    for line in quantizer_notes(registry, record):
        progress.note(line)
    for line in template_notes(registry, record):
        progress.warn(line)
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
        limits=Limits(
            body_bytes=max_body * 2**20,
            max_tokens=max_tokens,
            at_once=max_requests,
            adapter_at_once=max_requests_per_adapter,
            waiting=max_waiting,
            requests_per_minute=requests_per_minute,
        ),
        ready=lambda url: _announce(record, url, needs_key=keyed, as_json=as_json),
    )
    return implementation.serve(settings, progress)


def _announce(record: BaseRecord, url: str, *, needs_key: bool, as_json: bool) -> None:
    from adapterhub.plugins import open_registry
    from adapterhub.serve.examples import example_requests
    from adapterhub.serve.models import servable_versions

    found = next(servable_versions(open_registry(), record, sort="name", reverse=True), None)
    model = found.name if found else record.name
    result = {"url": url, "base": record.name, "example_model": model}
    lines = [
        f"{record.name} answers at {url}, and so does every adapter of it, for example {model}:",
        *(f"  {line}" for line in example_requests(url, model, needs_key=needs_key)),
    ]
    print_result(result, "\n".join(lines), as_json=as_json)
