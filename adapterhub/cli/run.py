"""`adz run`: one prompt, one answer."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result
from adapterhub.cli.trust import ca_option

if TYPE_CHECKING:
    from adapterhub.serve.client import PromptFormat


@click.command(short_help="Ask a base or an adapter one prompt.")
@click.argument("reference", metavar="REF")
@click.argument("prompt")
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
@json_option
def command(
    reference: str,
    prompt: str,
    url: str | None,
    api_key: str | None,
    max_tokens: int,
    temperature: float,
    chat: bool | None,
    as_json: bool,
) -> None:
    """Print what REF (a base or an adapter) answers to PROMPT.

    A running server is asked (see adz serve). Where --url is not given and none runs, the
    answer is made in this process.
    """
    from adapterhub.plugins import open_registry
    from adapterhub.serve.client import DEFAULT_URL, Client, mismatch, prompt_format_of

    registry, progress = open_registry(), TerminalProgress()
    # A server elsewhere may know names that this registry does not.
    trained = prompt_format_of(registry, reference) if url is None else None
    used = _choose(chat, trained)
    warning = mismatch(reference, trained, used)
    if warning:
        progress.warn(warning)
    client = Client(url or DEFAULT_URL, api_key)
    if url is None and not client.is_there():
        from adapterhub.generate import Sampling
        from adapterhub.serve.local import answer_here

        progress.note(f"no server at {DEFAULT_URL} (adz serve), answering in this process")
        sampling = Sampling(max_tokens, temperature=temperature)
        answer = answer_here(registry, reference, prompt, used, sampling, progress)
    else:
        answer = client.ask(reference, prompt, used, max_tokens=max_tokens, temperature=temperature)
    print_result({**asdict(answer), "prompt_format": used}, answer.text, as_json=as_json)


def _choose(chat: bool | None, trained: PromptFormat | None) -> PromptFormat:
    if chat is not None:
        return "chat" if chat else "plain"
    return trained or "chat"
