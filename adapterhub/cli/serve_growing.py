"""The options of `adz serve` for more than one process or machine, and what they start."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from adapterhub.cli.output import print_result

if TYPE_CHECKING:
    from adapterhub.manifest import BaseRecord

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--data-parallel",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Copies of the base that answer, each adapter in one of them (vLLM only; GPU "
        "unproven).",
    ),
    click.option(
        "--manifest",
        type=click.Choice(["k8s", "llm-d", "compose"]),
        help="Serve nothing here: print the files that deploy this server there (not tried on a "
        "cluster, GPU unproven).",
    ),
    click.option("--image", help="With --manifest: an image with adapterhub in it."),
    click.option("--remote", metavar="URL", help="With --manifest: where replicas pull from."),
    click.option(
        "--gpus",
        type=click.IntRange(0),
        default=0,
        help="With --manifest: of each replica; none by default.",
    ),
    click.option(
        "--ray/--no-ray",
        default=False,
        help="Serve with several servers behind Ray Serve, on this machine or at RAY_ADDRESS.",
    ),
    click.option(
        "--replicas",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="Servers of --ray or --manifest.",
    ),
)


def growing_options(function: F) -> F:
    """Add these options to a command, as keyword arguments."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def check_growing(options: dict[str, Any]) -> None:
    """Raise a usage error for options that say nothing together."""
    from adapterhub.errors import usage_error

    if options["ray"] and options["manifest"]:
        raise usage_error("--ray and --manifest exclude each other")
    if options["replicas"] > 1 and not (options["ray"] or options["manifest"]):
        raise usage_error("--replicas without --ray or --manifest", "adz serve --ray --replicas 2")
    for name in ("image", "remote", "gpus"):
        if options[name] and not options["manifest"]:
            raise usage_error(f"--{name} without --manifest", "see adz serve --help")


# What a deployment decides itself, and what is no business of a server elsewhere.
_NOT_PASSED = frozenset({
    "host", "port", "api_key", "ssl_certfile", "ssl_keyfile", "as_json",
    "manifest", "image", "remote", "gpus", "replicas", "ray", "detach",
})  # fmt: skip


def _given_flags() -> list[str]:
    """The options of the server that stand on this command line."""
    context = click.get_current_context()
    flags: list[str] = []
    for parameter in context.command.params:
        name = str(parameter.name)
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not isinstance(parameter, click.Option) or not given or name in _NOT_PASSED:
            continue
        value = context.params[name]
        if parameter.is_flag:
            flags.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        else:
            flags += [parameter.opts[0], str(value)]
    return flags


def print_manifest(
    base: BaseRecord,
    kind: Any,
    options: dict[str, Any],
    extra: tuple[str, ...],
    *,
    as_json: bool,
) -> int:
    """Print the files of a deployment; `options` are those above, `extra` the engine's own."""
    from adapterhub.deploy.render import documents, render
    from adapterhub.deploy.subject import find_subject
    from adapterhub.errors import EXIT_OK
    from adapterhub.plugins import open_registry
    from adapterhub.serve.models import servable_versions

    registry = open_registry()
    servable = sorted(version.name for version in servable_versions(registry, base))
    subject = find_subject(
        registry,
        base,
        tuple(dict.fromkeys(servable)),
        remote=options["remote"],
        image=options["image"],
        replicas=options["replicas"],
        gpus=options["gpus"],
        flags=(*_given_flags(), *(("--", *extra) if extra else ())),
    )
    text = "" if as_json else render(kind, subject)
    print_result(documents(kind, subject), text.rstrip("\n"), as_json=as_json)
    return EXIT_OK
