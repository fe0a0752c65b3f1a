"""The formats as descriptors."""

from __future__ import annotations

from collections.abc import Iterable

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_formats() -> Iterable[specs.Format]:
    """The layouts that instruction data comes in most often."""
    yield specs.Format(
        name="messages",
        summary="messages: a list of {role, content} that ends with the assistant",
        impl="adapterhub_formats.messages:Messages",
    )
    yield specs.Format(
        name="alpaca",
        summary="instruction, input (optional), output",
        impl="adapterhub_formats.alpaca:Alpaca",
    )
    yield specs.Format(
        name="prompt_completion",
        summary="prompt, completion: joined as they are, nothing between them",
        impl="adapterhub_formats.prompt_completion:PromptCompletion",
    )
    yield specs.Format(
        name="text",
        summary="text: all of it is learnt",
        impl="adapterhub_formats.text:Text",
    )
