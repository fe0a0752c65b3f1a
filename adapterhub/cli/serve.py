"""`adz serve`: a base and all of its adapters over the OpenAI API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result
from adapterhub.cli.serve_growing import check_growing, growing_options, print_manifest
from adapterhub.cli.serve_options import serve_settings, server_options

if TYPE_CHECKING:
    from adapterhub.manifest import BaseRecord
    from adapterhub.protocols import Registry, ServeSettings

_ARGUMENTS = "adapterhub.serve.arguments"


class _ServeCommand(click.Command):
    """Keeps the words that it was called with, for the same call in the background."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


@click.command(cls=_ServeCommand, short_help="Serve a base and its adapters over the OpenAI API.")
@click.argument("base", required=False)
@click.argument("extra", nargs=-1, type=click.UNPROCESSED, metavar="[-- ENGINE OPTIONS...]")
@server_options
@growing_options
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    base: str | None,
    extra: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> int:
    """Serve BASE (by default the only one) and every adapter of it that is in the registry,
    also those committed later. Each answers under its reference as the request's `model`.

    What stands behind -- goes to the engine's own command line. Ctrl-C or adz stop end the server
    when it has answered what it was asked; a second Ctrl-C at once.
    """
    from adapterhub.bases.choose import choose_base
    from adapterhub.errors import EXIT_OK
    from adapterhub.plugins import open_registry

    base, extra = _told_apart(base, extra)
    check_growing(options)
    if options["manifest"]:
        record = choose_base(open_registry(), base)
        return print_manifest(record, options["manifest"], options, extra, as_json=as_json)
    progress = TerminalProgress()
    keyed = _check_doors(options, progress)
    registry = open_registry()
    record = choose_base(registry, base)
    engine = "ray" if options["ray"] else options["engine"]
    engine_name = _check_base(registry, record, engine, progress)
    announce = partial(_announce, record, needs_key=keyed, as_json=as_json)
    if options["detach"]:
        _start_in_background(context, record, options["port"], announce, progress)
        return EXIT_OK
    settings = serve_settings(record.name, options, extra, keyed=keyed, ready=announce)
    return _serve(settings, engine, engine_name, progress)


def _told_apart(base: str | None, extra: tuple[str, ...]) -> tuple[str | None, tuple[str, ...]]:
    """The base and the engine's own options. `adz serve -- --flag` names no base: click hands the
    flag over as BASE."""
    from adapterhub.errors import usage_error

    if base is not None and base.startswith("-"):
        extra = (base, *extra)
        base = None
    if extra and not extra[0].startswith("-"):
        raise usage_error(f"{extra[0]!r} is one argument too many", "see adz serve --help")
    return base, extra


def _check_doors(options: Mapping[str, Any], progress: TerminalProgress) -> bool:
    """Raise AdzError where it cannot listen as it is told to; whether clients need a key."""
    from adapterhub.serve.address import check_free
    from adapterhub.serve.doors.certificate import check_certificate
    from adapterhub.serve.doors.settings import needs_key

    host = options["host"]
    check_free(host, options["port"])
    keyed = needs_key(host, options["api_key"], options["keys"], progress)
    check_certificate(options["ssl_certfile"], options["ssl_keyfile"])
    return keyed


def _check_base(
    registry: Registry, record: BaseRecord, engine: str | None, progress: TerminalProgress
) -> str:
    """The engine's name; raise AdzError for an unknown one, and for a base that changed."""
    from adapterhub.bases.verify import verify_base
    from adapterhub.serve import engines
    from adapterhub.serve.models import template_notes
    from adapterhub.serve.quantized import quantizer_notes

    engine_name = engines.find_engine(engine).name
    verify_base(record)
    for line in quantizer_notes(registry, record):
        progress.note(line)
    for line in template_notes(registry, record):
        progress.warn(line)
    return engine_name


def _serve(
    settings: ServeSettings, engine: str | None, engine_name: str, progress: TerminalProgress
) -> int:
    from adapterhub.serve import engines
    from adapterhub.serve.lifecycle.state import stated

    implementation = engines.choose_engine(engine)
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
