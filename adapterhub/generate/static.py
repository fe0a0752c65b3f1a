"""Static batches: all rows begin together, and the batch ends with its last row.

`model.generate` runs the steps, so that every architecture and every PEFT method does at
inference what it does in transformers and PEFT; each row's token is chosen here, so that rows
may ask for different things.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from adapterhub.data import stop_token
from adapterhub.generate.row import Row
from adapterhub.generate.sampling import Continuation, Sampling

# PEFT says so at each step of a soft prompt; what follows from it is seen to below.
warnings.filterwarnings("ignore", message="Position ids are not supported")

OnText = Callable[[int, str], bool]
"""Called with a row and its new text after each of its tokens; False ends the row."""


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    samplings: Sequence[Sampling],
    *,
    stop_ids: frozenset[int],
    on_text: OnText = lambda row, text: True,
) -> list[Continuation]:
    """Continue every prompt (token ids), as one batch padded on the left.

    `stop_ids` end a row. Soft prompts lose their position under padding, so there only
    prompts of one length share a batch.
    """
    rows = [
        Row(prompt, sampling, tokenizer, stop_ids, _only_text(on_text, number))
        for number, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True))
    ]
    run_rows(model, rows, tokenizer, stop_ids)
    return [row.result for row in rows]


def run_rows(model: Any, rows: Sequence[Row], tokenizer: Any, stop_ids: frozenset[int]) -> None:
    """As `generate`, with rows of the caller's."""
    for batch in _batches(model, rows):
        _run(model, batch, tokenizer, stop_ids)


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer of `model`: its own, the tokenizer's, the chat template's."""
    configured = model.generation_config.eos_token_id
    found = set(configured) if isinstance(configured, list) else {configured}
    found.add(tokenizer.eos_token_id)
    if tokenizer.chat_template:
        found.add(stop_token(tokenizer, "chat"))
    return frozenset(found - {None})


def _only_text(on_text: OnText, number: int) -> Callable[[str, object], bool]:
    return lambda text, scores: on_text(number, text)


class _Steps:
    """What `model.generate` asks at each step: which tokens come next, and who is done.

    It is a logits processor and a stopping criterion of transformers'.
    """

    def __init__(self, rows: Sequence[Row], pad: int) -> None:
        self._rows = rows
        self._pad = pad

    def choose(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """(rows, vocabulary) logits in, the same shape out with only the chosen token left."""
        tokens = [
            self._pad if row.done else row.take(scores[place])
            for place, row in enumerate(self._rows)
        ]
        chosen = torch.full_like(scores, float("-inf"))
        return chosen.scatter_(1, torch.tensor(tokens, device=scores.device)[:, None], 0.0)

    def done(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """(rows,) bool."""
        flags = [row.done for row in self._rows]
        return torch.tensor(flags, device=input_ids.device)


def _batches(model: Any, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    if not getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        yield rows
        return
    for length in sorted({len(row.prompt) for row in rows}):
        yield [row for row in rows if len(row.prompt) == length]


def _run(model: Any, rows: Sequence[Row], tokenizer: Any, stop_ids: frozenset[int]) -> None:
    from transformers import GenerationConfig

    pad = tokenizer.pad_token_id
    pad = next(iter(stop_ids), 0) if pad is None else pad
    width = max(len(row.prompt) for row in rows)
    ids = torch.tensor([[pad] * (width - len(row.prompt)) + row.prompt for row in rows])
    mask = torch.tensor([[0] * (width - len(row.prompt)) + [1] * len(row.prompt) for row in rows])
    device = next(model.parameters()).device
    steps = _Steps(rows, pad)
    # Explicit values, because what is left out comes from the model's own defaults.
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max(row.sampling.max_tokens for row in rows),
        min_new_tokens=0,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        pad_token_id=pad,
        eos_token_id=sorted(stop_ids),
        use_cache=True,
    )
    with torch.inference_mode():
        model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            generation_config=config,
            logits_processor=[steps.choose],
            stopping_criteria=[steps.done],
        )
