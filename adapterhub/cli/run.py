"""`adz run`: a prompt, or one on each line of the input."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from itertools import tee
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result
from adapterhub.cli.trust import ca_option
from adapterhub.errors import EXIT_FAILED, EXIT_OK, AdzError, usage_error

if TYPE_CHECKING:
    from adapterhub.serve.batch import Line
    from adapterhub.serve.client import Answer, PromptFormat

_RETRIES = 8


@click.command(short_help="Ask a base or an adapter a prompt, or many.")
@click.argument("reference", metavar="REF")
@click.argument("prompt", required=False)
@click.option("--url", help="The server; by default http://127.0.0.1:8000/v1.")
@click.option(
    "--api-key",
    envvar=["ADZ_RUN_API_KEY", "ADZ_API_KEY", "OPENAI_API_KEY"],
    help="The server's key.",
)
@ca_option
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Longest answer.",
)
@click.option(
    "--temperature", type=click.FloatRange(0, 2), default=0.0, show_default=True, help="0: greedy."
)
@click.option(
    "--chat/--plain",
    "chat",
    default=None,
    help="The prompt's format; by default the one that the adapter was trained on.",
)
@click.option(
    "--at-once",
    type=click.IntRange(1, 256),
    default=8,
    show_default=True,
    help="Lines of the input in flight.",
)
@json_option
def command(
    reference: str,
    prompt: str | None,
    url: str | None,
    api_key: str | None,
    max_tokens: int,
    temperature: float,
    chat: bool | None,
    at_once: int,
    as_json: bool,
) -> int:
    """Print what REF (a base or an adapter) answers to PROMPT.

    Without PROMPT, or with -, each line of the standard input is one: text, or a JSON object with
    `prompt` or `messages` (a chat). Each answer is a line, in the order of the input, with its
    line ends written as \\n; --json prints an object a line. A line that fails is told on stderr,
    leaves an empty one, and the exit code is 1.

    A running server is asked (see adz serve). Where --url is not given and none runs, the
    answers are made in this process.
    """
    from adapterhub.plugins import open_registry
    from adapterhub.serve.batch import Line, ask_many, read_lines
    from adapterhub.serve.client import DEFAULT_URL, Client, Question, mismatch, prompt_format_of

    many = prompt in (None, "-")
    if prompt is None and sys.stdin.isatty():
        raise usage_error("there is no prompt", "give one, or one a line on the standard input")
    registry, progress = open_registry(), TerminalProgress()
    # A server elsewhere may know names that this registry does not.
    trained = prompt_format_of(registry, reference) if url is None else None
    used = _choose(chat, trained)
    warning = mismatch(reference, trained, used)
    if warning:
        progress.warn(warning)
    lines = read_lines(sys.stdin) if many else iter([Line(1, Question(prompt or ""))])
    client = Client(url or DEFAULT_URL, api_key, retries=_RETRIES if many else 0)
    if url is None and not client.is_there():
        from adapterhub.derived.local import with_merges_made
        from adapterhub.generate import Sampling
        from adapterhub.serve.local import answer_here

        progress.note(f"no server at {DEFAULT_URL} (adz serve), answering in this process")
        sampling = Sampling(max_tokens, temperature=temperature)
        lines, asked = tee(lines)
        questions = (line.question for line in asked)
        (reference,) = with_merges_made(registry, [reference], progress)
        here = answer_here(registry, reference, questions, used, sampling, progress)
        return _print_all(zip(lines, here, strict=True), used, many=many, as_json=as_json)

    def ask(question: Question) -> Answer:
        return client.ask(reference, question, used, max_tokens=max_tokens, temperature=temperature)

    if many:
        # A server that is not there would be as many errors as there are lines.
        client.greet()
    try:
        answers = ask_many(lines, ask, at_once=at_once)
        return _print_all(answers, used, many=many, as_json=as_json)
    except KeyboardInterrupt:
        client.close()
        raise


def _choose(chat: bool | None, trained: PromptFormat | None) -> PromptFormat:
    if chat is not None:
        return "chat" if chat else "plain"
    return trained or "chat"


def _print_all(
    answers: Iterable[tuple[Line, Answer | AdzError]],
    used: PromptFormat,
    *,
    many: bool,
    as_json: bool,
) -> int:
    """Print each answer as it comes; the exit code."""
    failed = False
    for line, answer in answers:
        if not many:
            if isinstance(answer, AdzError):
                raise answer
            print_result({**asdict(answer), "prompt_format": used}, answer.text, as_json=as_json)
        elif isinstance(answer, AdzError):
            failed = True
            click.echo(f"line {line.number}: {answer}", err=True)
            click.echo(json.dumps({"line": line.number, "error": str(answer)}) if as_json else "")
        else:
            shown = used if not _is_chat(line) else "chat"
            row = {"line": line.number, **asdict(answer), "prompt_format": shown}
            click.echo(
                json.dumps(row, ensure_ascii=False)
                if as_json
                else answer.text.replace("\r", "\\r").replace("\n", "\\n")
            )
    return EXIT_FAILED if failed else EXIT_OK


def _is_chat(line: Line) -> bool:
    return bool(getattr(line.question, "messages", ()))
