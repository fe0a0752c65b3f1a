"""`adz preset`: what an adapter's requests get where they do not say otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import json_option, print_result

if TYPE_CHECKING:
    from adapterhub.serve.preset import Preset


@click.command(short_help="Set what a version's requests get by default.")
@click.argument("reference")
@click.option("--system", help="System prompt of chats that bring none; @FILE reads it.")
@click.option("--temperature", type=float, help="Sampling temperature.")
@click.option("--top-p", type=float, help="Nucleus sampling.")
@click.option("--max-tokens", type=int, help="Length of an answer.")
@click.option("--stop", multiple=True, metavar="TEXT", help="Ends an answer; may be repeated.")
@click.option(
    "--chat-template",
    metavar="FILE|DIGEST",
    help="Jinja template used instead of the base's: a file, or the digest of one of the "
    "version's own files.",
)
@click.option(
    "--unset",
    multiple=True,
    type=click.Choice(["system", "temperature", "top_p", "max_tokens", "stop", "chat_template"]),
    help="Take a value away; may be repeated.",
)
@json_option
def command(
    reference: str,
    system: str | None,
    temperature: float | None,
    top_p: float | None,
    max_tokens: int | None,
    stop: tuple[str, ...],
    chat_template: str | None,
    unset: tuple[str, ...],
    as_json: bool,
) -> None:
    """Set, for the version REFERENCE, what adz serve gives a request that does not say
    otherwise; without an option show it. Running servers follow with the next request."""
    from adapterhub.plugins import open_registry
    from adapterhub.serve.preset import change_preset, preset_of, read_template

    registry = open_registry()
    version = registry.resolve(reference)
    given: dict[str, Any] = {
        "system": _text(system),
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "stop": list(stop) or None,
        "chat_template": read_template(registry, version, chat_template) if chat_template else None,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    changes.update(dict.fromkeys(unset))
    preset = change_preset(registry, version, changes) if changes else preset_of(registry, version)
    value = {"reference": version.reference, "preset": preset.given()}
    lines = [version.reference, *_lines(preset)]
    text = "\n".join(lines) if preset.given() else f"{version.reference} has no preset"
    print_result(value, text, as_json=as_json)


def _text(given: str | None) -> str | None:
    from adapterhub.errors import usage_error

    if given is None or not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise usage_error(f"--system {given} cannot be read: {error}") from error


def _lines(preset: Preset) -> list[str]:
    values = preset.given()
    values.pop("chat_template", None)
    values["chat_template"] = values.pop("chat_template_sha256", None)
    return [f"  {name.ljust(13)}  {value}" for name, value in values.items() if value is not None]
