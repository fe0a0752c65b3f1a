"""`adz base`: the base models that adapters belong to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import TerminalProgress, format_table, json_option, print_result

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterhub.manifest import BaseRecord


@click.group(short_help="Add, list, show and remove base models.")
def command() -> None:
    """Add, list, show and remove base models.

    A base is known by digests of its weights, architecture, tokenizer and chat template,
    never by its name alone.
    """


@command.command("add", short_help="Make a base model known under a name.")
@click.argument("name")
@click.argument("source")
@click.option("--copy", is_flag=True, help="Keep a copy instead of a reference to the files.")
@click.option(
    "--quantised-from",
    metavar="BASE",
    help="The base whose weights these are in another form: its adapters fit.",
)
@json_option
def add(name: str, source: str, copy: bool, quantised_from: str | None, as_json: bool) -> None:
    """Make a base model known as NAME.

    SOURCE is a directory, a .gguf file, a Hugging Face id such as Qwen/Qwen3-0.6B, or
    pkg:NAME for a model that ships in an installed Python package. A GGUF file is
    dequantised once.
    """
    from adapterhub.bases.add import add_base
    from adapterhub.plugins import open_registry

    record = add_base(
        open_registry(),
        name,
        source,
        copy=copy,
        quantised_from=quantised_from,
        progress=TerminalProgress(),
    )
    print_result(record.model_dump(mode="json"), _describe(record), as_json=as_json)


@command.command("quantize", short_help="Store a base model quantised, as a new one.")
@click.argument("base")
@click.option("--with", "quantizer", required=True, help="How: nf4, int8, ... (docs/methods.md).")
@click.option("--name", help="The new base's name; BASE-QUANTIZER by default.")
@click.option(
    "-o",
    "--option",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="One option of the quantizer, such as double_quant=false.",
)
@json_option
def quantize(
    base: str, quantizer: str, name: str | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """Store BASE quantised as a base of its own, on which the adapters of BASE may be used.

    What was stored is loaded again and must answer as before.
    """
    from adapterhub.bases.quantise import quantise_base
    from adapterhub.config import parse_overrides
    from adapterhub.plugins import open_registry

    registry = open_registry()
    record = quantise_base(
        registry,
        registry.base(base),
        name or f"{base}-{quantizer}",
        quantizer,
        parse_overrides(overrides),
        TerminalProgress(),
    )
    print_result(record.model_dump(mode="json"), _describe(record), as_json=as_json)


@command.command("ls", short_help="List the base models.")
@json_option
def list_bases(as_json: bool) -> None:
    """List the base models."""
    from adapterhub.plugins import open_registry

    bases = open_registry().bases()
    rows = [
        (b.name, b.architecture, f"{b.parameters / 1e6:,.1f}M", b.dtype, b.source) for b in bases
    ]
    text = format_table(("name", "architecture", "parameters", "dtype", "source"), rows)
    print_result([b.model_dump(mode="json") for b in bases], text, as_json=as_json)


@command.command("show", short_help="Show one base model.")
@click.argument("name")
@click.option("--path", is_flag=True, help="Print only the directory that holds it.")
@json_option
def show(name: str, path: bool, as_json: bool) -> None:
    """Show the base model NAME: where it is and what identifies it."""
    from adapterhub.plugins import open_registry

    record = open_registry().base(name)
    text = record.path if path else _describe(record)
    print_result(record.model_dump(mode="json"), text, as_json=as_json)


@command.command("rm", short_help="Forget a base model.")
@click.argument("name")
@json_option
def remove(name: str, as_json: bool) -> None:
    """Forget the base model NAME; refused while an adapter needs it.

    Files that adapterhub made itself are deleted; the user's own are left alone.
    """
    from adapterhub.bases.add import remove_base
    from adapterhub.plugins import open_registry

    record = remove_base(open_registry(), name)
    print_result({"removed": record.name}, f"removed {record.name}", as_json=as_json)


def _describe(record: BaseRecord) -> str:
    digests = record.digests
    rows = {
        "name": record.name,
        "source": record.source,
        "path": record.path,
        "architecture": record.architecture,
        "parameters": f"{record.parameters:,}",
        "dtype": record.dtype,
        "weights": digests.weights,
        "arch": digests.arch,
        "tokenizer": digests.tokenizer,
        "chat template": digests.chat_template or "none",
        "created": record.created,
    }
    if record.derivation:
        rows["derived"] = _derived(record.derivation)
    width = max(map(len, rows))
    return "\n".join(f"{key.ljust(width)}  {value}" for key, value in rows.items())


def _derived(made: Mapping[str, Any]) -> str:
    if "file" in made:
        return f"{made['kind']} from {made['file']} ({made['tensor_type']})"
    by = made.get("quantizer") or made.get("method")
    return f"{made['kind']} from {made['from']}" + (f" by {by}" if by else "")
