"""Answers in this process, where no server runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from adapterhub.bases.identity import template_warning
from adapterhub.bases.together import resolve_together
from adapterhub.bases.verify import verify_base
from adapterhub.data import encode_prompt, render_turns
from adapterhub.errors import AdzError
from adapterhub.generate import Sampling, generate, stop_tokens
from adapterhub.models import compute_device, load_adapter, load_base, load_tokenizer
from adapterhub.protocols import Progress, Registry
from adapterhub.serve.client import Answer, PromptFormat, Question

_TOGETHER = 8


def answer_here(
    registry: Registry,
    reference: str,
    questions: Iterable[Question | AdzError],
    prompt_format: PromptFormat,
    sampling: Sampling,
    progress: Progress,
) -> Iterator[Answer | AdzError]:
    """What the base or adapter `reference` answers, in the order of the questions; an AdzError in
    the place of one that cannot be asked.

    Raises AdzError, before the base is loaded, for an unknown name, an adapter whose base is not
    known, or a base that changed.
    """
    base, versions = resolve_together(registry, [reference])
    verify_base(base)
    version = versions.get(reference)
    warning = template_warning(version, base) if version else None
    if warning:
        progress.warn(warning)
    tokenizer = load_tokenizer(base)
    loaded = load_base(base).to(compute_device())
    stop_ids = stop_tokens(loaded, tokenizer)
    model = load_adapter(loaded, version, registry.path(version)) if version else loaded
    name = version.reference if version else base.name
    waiting = iter(questions)
    while batch := list(islice(waiting, _TOGETHER)):
        prompts = [_tokens(question, tokenizer, prompt_format) for question in batch]
        asked = [prompt for prompt in prompts if isinstance(prompt, list)]
        done = iter(
            generate(model, tokenizer, asked, [sampling] * len(asked), stop_ids=stop_ids)
            if asked
            else []
        )
        for prompt in prompts:
            if isinstance(prompt, AdzError):
                yield prompt
            else:
                found = next(done)
                yield Answer(name, found.text, found.finish or "")


def _tokens(
    question: Question | AdzError, tokenizer: Any, prompt_format: PromptFormat
) -> list[int] | AdzError:
    if isinstance(question, AdzError):
        return question
    try:
        if prompt_format == "chat" or question.messages:
            turns = question.messages or ({"role": "user", "content": question.prompt},)
            return encode_prompt(render_turns(turns, tokenizer), tokenizer, "chat")
    except AdzError as error:
        return error
    return encode_prompt(question.prompt, tokenizer, "plain") or AdzError("the prompt is empty")
