"""`adz chat`: a conversation with a base or an adapter."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result
from adapterhub.cli.trust import ca_option

if TYPE_CHECKING:
    from adapterhub.serve.client import Answer


@click.command(short_help="Talk to a base or an adapter on a running server.")
@click.argument("reference", metavar="REF")
@click.option("--url", help="The server; by default http://127.0.0.1:8000/v1.")
@click.option(
    "--api-key",
    envvar=["ADZ_CHAT_API_KEY", "ADZ_API_KEY", "OPENAI_API_KEY"],
    help="The server's key.",
)
@ca_option
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Longest answer.",
)
@click.option(
    "--temperature", type=click.FloatRange(0, 2), default=0.0, show_default=True, help="0: greedy."
)
@json_option
def command(
    reference: str,
    url: str | None,
    api_key: str | None,
    max_tokens: int,
    temperature: float,
    as_json: bool,
) -> None:
    """Talk to REF (a base or an adapter) on a running server (see adz serve).

    Each line is a turn, and the conversation so far is sent with it. Ctrl-D ends.
    """
    from adapterhub.plugins import open_registry
    from adapterhub.serve.client import DEFAULT_URL, Client, join, mismatch, prompt_format_of

    # A server elsewhere may know names that this registry does not.
    trained = prompt_format_of(open_registry(), reference) if url is None else None
    warning = mismatch(reference, trained, "chat")
    if warning:
        TerminalProgress().warn(f"{warning}: see adz run")
    client = Client(url or DEFAULT_URL, api_key)
    client.greet()
    messages: list[dict[str, str]] = []
    for line in _turns(reference):
        messages.append({"role": "user", "content": line})
        pieces = client.chat(reference, messages, max_tokens=max_tokens, temperature=temperature)
        answer = join(pieces if as_json else _shown(pieces))
        print_result(asdict(answer), "", as_json=as_json)
        messages.append({"role": "assistant", "content": answer.text})


def _turns(reference: str) -> Iterator[str]:
    """Lines from the user, with a prompt where there is a terminal, to the end of the input."""
    live = sys.stdin.isatty()
    while True:
        if live:
            click.echo(f"{reference}> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.strip()


def _shown(pieces: Iterator[Answer]) -> Iterator[Answer]:
    """The same pieces, printed as they come."""
    for piece in pieces:
        click.echo(piece.text, nl=False)
        yield piece
    click.echo()
