"""One answer in this process, where no server runs."""

from __future__ import annotations

from adapterhub.bases.identity import template_warning
from adapterhub.bases.together import resolve_together
from adapterhub.bases.verify import verify_base
from adapterhub.data import encode_prompt, render
from adapterhub.errors import AdzError
from adapterhub.generate import Sampling, generate, stop_tokens
from adapterhub.models import compute_device, load_adapter, load_base, load_tokenizer
from adapterhub.protocols import Example, Progress, Registry
from adapterhub.serve.client import Answer, PromptFormat


def answer_here(
    registry: Registry,
    reference: str,
    prompt: str,
    prompt_format: PromptFormat,
    sampling: Sampling,
    progress: Progress,
) -> Answer:
    """What the base or adapter `reference` answers. Raises AdzError, before the base is loaded,
    for an unknown name, an adapter whose base is not known, or a base that changed."""
    base, versions = resolve_together(registry, [reference])
    verify_base(base)
    version = versions.get(reference)
    warning = template_warning(version, base) if version else None
    if warning:
        progress.warn(warning)
    tokenizer = load_tokenizer(base)
    text = prompt
    if prompt_format == "chat":
        turns = ({"role": "user", "content": prompt}, {"role": "assistant", "content": ""})
        text, _ = render(Example(messages=turns), tokenizer, "chat")
    tokens = encode_prompt(text, tokenizer, prompt_format)
    if not tokens:
        raise AdzError("the prompt is empty")
    loaded = load_base(base).to(compute_device())
    stop_ids = stop_tokens(loaded, tokenizer)
    model = load_adapter(loaded, version, registry.path(version)) if version else loaded
    done = generate(model, tokenizer, [tokens], [sampling], stop_ids=stop_ids)[0]
    return Answer(version.reference if version else base.name, done.text, done.finish or "")
