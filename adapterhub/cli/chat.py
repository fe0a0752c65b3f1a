"""`adz chat`: a conversation with a base or an adapter, or with several side by side."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result
from adapterhub.cli.trust import ca_option
from adapterhub.errors import AdzError, usage_error

if TYPE_CHECKING:
    from adapterhub.serve.client import Answer
    from adapterhub.serve.conversation import Conversation, Side

_HELP = """\
/model REF [REF...]  talk to another, or to several side by side
/system [TEXT]       say what the assistant is; without TEXT nothing
/clear               forget what was said
/save FILE           write the conversation, a line of JSON for each model
/help                this
/quit                end, as Ctrl-D does; Ctrl-C ends an answer only"""
_LONGEST_HISTORY = 1000


@click.command(short_help="Talk to a base or an adapter on a running server.")
@click.argument("references", metavar="REF [REF...]", nargs=-1, required=True)
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
@click.option("--system", metavar="TEXT", help="What the assistant is told it is.")
@json_option
def command(
    references: tuple[str, ...],
    url: str | None,
    api_key: str | None,
    max_tokens: int,
    temperature: float,
    system: str | None,
    as_json: bool,
) -> None:
    """Talk to REF (a base or an adapter) on a running server (see adz serve), or to several: side
    by side on a wide terminal, one after the other elsewhere.

    Each line is a turn, and the conversation so far is sent with it. A line that begins with / is
    a command, such as /help. Ctrl-C ends an answer, Ctrl-D the conversation.
    """
    from adapterhub.plugins import open_registry
    from adapterhub.serve.client import DEFAULT_URL, Client, mismatch, prompt_format_of
    from adapterhub.serve.conversation import Conversation, Side

    for reference in references:
        # A server elsewhere may know names that this registry does not.
        trained = prompt_format_of(open_registry(), reference) if url is None else None
        warning = mismatch(reference, trained, "chat")
        if warning:
            TerminalProgress().warn(f"{warning}: see adz run")
    client = Client(url or DEFAULT_URL, api_key)
    client.greet()
    sides = [Side(reference) for reference in references]
    conversation = Conversation(client, sides, max_tokens, temperature, system)
    live = sys.stdin.isatty()
    for line in _lines(conversation, live=live):
        try:
            if line == "/quit":
                return
            if line.startswith("/"):
                _obey(conversation, line)
            else:
                _answer(conversation, line, as_json=as_json)
        except AdzError as error:
            # Somebody who types can try again; a script has to know.
            if not live:
                raise
            click.echo(f"adz: {error}", err=True)


def _lines(conversation: Conversation, *, live: bool) -> Iterator[str]:
    """Lines from the user, edited and remembered where there is a terminal, to the end."""
    if live:
        _remember_lines()
    while True:
        prompt = " | ".join(side.reference for side in conversation.sides) + "> "
        try:
            if live:
                line = input(prompt)
            elif not (line := sys.stdin.readline()):
                return
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            if not live:
                raise
            click.echo("\n(Ctrl-D ends)", err=True)
            continue
        if line.strip():
            yield line.strip()


def _remember_lines() -> None:
    """Arrow keys, and the lines of earlier conversations; kept from other users of the machine."""
    import atexit

    from adapterhub.home import adz_home

    try:
        import readline
    except ImportError:
        return
    file = adz_home() / "chat-history"
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        readline.read_history_file(file)
        readline.set_history_length(_LONGEST_HISTORY)
        atexit.register(readline.write_history_file, file)


def _obey(conversation: Conversation, line: str) -> None:
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if name == "/model":
        conversation.switch(rest.split())
        click.echo(f"now {', '.join(rest.split())}", err=True)
    elif name == "/system":
        conversation.system = rest or None
        click.echo("system prompt set" if rest else "no system prompt", err=True)
    elif name == "/clear":
        conversation.clear()
        click.echo("forgotten", err=True)
    elif name == "/save":
        if not rest:
            raise usage_error("/save needs a file")
        count = conversation.save(Path(rest).expanduser())
        click.echo(f"{rest}: {count} {'line' if count == 1 else 'lines'}", err=True)
    elif name == "/help":
        click.echo(_HELP, err=True)
    else:
        raise usage_error(f"there is no command {name}", "see /help")


def _answer(conversation: Conversation, text: str, *, as_json: bool) -> None:
    from adapterhub.cli import chat_columns

    if not as_json and chat_columns.fits(len(conversation.sides)):
        chat_columns.show(conversation, text)
        return
    for side in conversation.sides:
        if len(conversation.sides) > 1 and not as_json:
            click.echo(f"{side.reference}:")
        if not _answer_of(conversation, side, text, as_json=as_json):
            return


def _answer_of(conversation: Conversation, side: Side, text: str, *, as_json: bool) -> bool:
    """One side's answer as it comes; False where Ctrl-C ended it."""
    from adapterhub.serve.client import join

    pieces = conversation.ask(side, text)
    try:
        answer = join(pieces if as_json else _shown(pieces))
    except KeyboardInterrupt:
        pieces.close()
        click.echo("\n(interrupted)", err=True)
        return False
    print_result(asdict(answer), "", as_json=as_json)
    return True


def _shown(pieces: Iterator[Answer]) -> Iterator[Answer]:
    """The same pieces, printed as they come."""
    for piece in pieces:
        click.echo(piece.text, nl=False)
        yield piece
    click.echo()
