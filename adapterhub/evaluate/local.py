"""Answers from the model in this process, one subject after the other, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapterhub.data import encode_prompt, render
from adapterhub.errors import AdzError
from adapterhub.evaluate.questions import Question
from adapterhub.generate import Sampling, generate, stop_tokens
from adapterhub.manifest import BaseRecord
from adapterhub.models import (
    compute_device,
    load_adapter,
    load_base,
    load_directory,
    load_tokenizer,
)
from adapterhub.protocols import Example, Registry, Task


class LocalAnswerer:
    """Loads the base once and each version over it."""

    engine = "transformers"

    def __init__(self, registry: Registry, base: BaseRecord, batch_size: int) -> None:
        self._registry = registry
        self._batch_size = batch_size
        self._model = load_base(base).to(compute_device())
        self._tokenizer = load_tokenizer(base)

    def answer(self, questions: Sequence[Question], task: Task) -> list[str]:
        """See `Answerer`."""
        answers = [""] * len(questions)
        places: dict[str, list[int]] = {}
        for place, question in enumerate(questions):
            places.setdefault(question.subject.model, []).append(place)
        for group in places.values():
            model = self._model_of(questions[group[0]])
            # Prompts of like length share a batch, so that little of it is padding.
            group.sort(key=lambda place: len(questions[place].text()))
            for start in range(0, len(group), self._batch_size):
                batch = group[start : start + self._batch_size]
                texts = self._generate(model, [questions[place] for place in batch])
                for place, text in zip(batch, texts, strict=True):
                    answers[place] = text
                task.advance(len(batch), questions[group[0]].subject.name)
        return answers

    def _model_of(self, question: Question) -> Any:
        version, directory = question.subject.version, question.subject.directory
        if directory is not None:
            method = version.manifest.method if version else "lora"
            return load_directory(self._model, method, directory)
        if version is None:
            return self._model
        return load_adapter(self._model, version, self._registry.path(version))

    def _generate(self, model: Any, questions: Sequence[Question]) -> list[str]:
        done = generate(
            model,
            self._tokenizer,
            [self._encode(question) for question in questions],
            [Sampling(question.max_tokens, stop=question.stop) for question in questions],
            stop_ids=stop_tokens(self._model, self._tokenizer),
        )
        return [continuation.text for continuation in done]

    def _encode(self, question: Question) -> list[int]:
        text = question.text()
        if question.prompt_format == "chat":
            # A chat is rendered up to its last message, which is the answer.
            turns = (*question.messages(), {"role": "assistant", "content": ""})
            text, _ = render(Example(messages=turns), self._tokenizer, "chat")
        tokens = encode_prompt(text, self._tokenizer, question.prompt_format)
        context = getattr(self._model.config, "max_position_embeddings", len(tokens))
        if not 0 < len(tokens) <= context:
            raise AdzError(
                f"a prompt has {len(tokens)} tokens, the base reads 1 to {context}",
                "lower --shots or shorten the rows",
            )
        return tokens
