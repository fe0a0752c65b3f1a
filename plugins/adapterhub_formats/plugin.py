"""The formats as descriptors."""

from __future__ import annotations

from collections.abc import Iterable

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_formats() -> Iterable[specs.Format]:
    """The layouts that data comes in most often."""
    yield specs.Format(
        name="messages",
        summary="messages: a list of {role, content} that ends with the assistant",
        impl="adapterhub_formats.messages:Messages",
    )
    yield specs.Format(
        name="sharegpt",
        summary="conversations: a list of {from, value} that ends with gpt",
        impl="adapterhub_formats.sharegpt:ShareGpt",
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
    yield specs.Format(
        name="preference",
        summary="prompt (or what they begin with), chosen, rejected",
        impl="adapterhub_formats.preference:Preference",
        kind="preference",
    )
    yield specs.Format(
        name="unpaired_preference",
        summary="prompt, completion, label: true for a good answer",
        impl="adapterhub_formats.unpaired_preference:UnpairedPreference",
        kind="unpaired_preference",
    )
    yield specs.Format(
        name="prompt",
        summary="prompt: a question without an answer",
        impl="adapterhub_formats.prompt:Prompt",
        kind="prompt",
    )
