"""`adz serve`: a base and all of its adapters over the OpenAI API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.manifest import BaseRecord


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
@click.option("--api-key", help="Refuse requests without this key.")
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
@json_option
def command(
    base: str | None,
    extra: tuple[str, ...],
    host: str,
    port: int,
    api_key: str | None,
    max_rank: int | None,
    max_resident: int,
    max_context: int | None,
    dtype: str,
    engine: str | None,
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
    from adapterhub.protocols import ServeSettings
    from adapterhub.serve import engines
    from adapterhub.serve.address import check_free, is_loopback
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
    registry = open_registry()
    record = choose_base(registry, base)
    implementation = engines.choose_engine(engine)
    verify_base(record)
    if not is_loopback(host) and api_key is None:
        progress.warn(f"whoever reaches {host} may use this server: give it an --api-key")
    for line in quantizer_notes(registry, record):
        progress.note(line)
    for line in template_notes(registry, record):
        progress.warn(line)
    settings = ServeSettings(
        base=record.name,
        host=host,
        port=port,
        api_key=api_key,
        max_rank=max_rank,
        max_resident=max_resident,
        max_context=max_context,
        dtype=dtype,
        extra=extra,
        ready=lambda url: _announce(record, url, needs_key=api_key is not None, as_json=as_json),
    )
    return implementation.serve(settings, progress)


def _announce(record: BaseRecord, url: str, *, needs_key: bool, as_json: bool) -> None:
    from adapterhub.plugins import open_registry
    from adapterhub.serve.examples import example_requests
    from adapterhub.serve.models import why_not_servable

    versions = [v for v in open_registry().versions() if why_not_servable(v, record) is None]
    model = versions[-1].name if versions else record.name
    result = {"url": url, "base": record.name, "example_model": model}
    lines = [
        f"{record.name} answers at {url}, and so does every adapter of it, for example {model}:",
        *(f"  {line}" for line in example_requests(url, model, needs_key=needs_key)),
    ]
    print_result(result, "\n".join(lines), as_json=as_json)
