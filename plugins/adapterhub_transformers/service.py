"""What is served: which version a request means, its prompt as tokens, and whether it fits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import Lock
from typing import Any

from adapterhub import specs
from adapterhub.convert.source import may_convert
from adapterhub.data import encode_prompt, render_turns
from adapterhub.data.prompt import PromptFormat
from adapterhub.derived.served import Derived, tell_error
from adapterhub.errors import AdzError
from adapterhub.manifest import BaseRecord, Version
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Progress, Registry
from adapterhub.serve.errors import RequestError
from adapterhub.serve.metrics import Metrics, current_request
from adapterhub.serve.models import ModelList, ServedModel, why_not_servable
from adapterhub.serve.openai_api import refusal, room
from adapterhub.serve.preset import Preset, Presets, apply_preset
from adapterhub.serve.sticky import ASKING
from adapterhub.serve.unknown import UnknownNames
from adapterhub_transformers.grammar import Grammars
from adapterhub_transformers.requests import GenerationRequest
from adapterhub_transformers.worker import Worker


@dataclass(frozen=True, slots=True)
class Service:
    """`context` is the number of tokens that prompt and answer may have together."""

    registry: Registry
    base: BaseRecord
    tokenizer: Any
    worker: Worker
    context: int
    progress: Progress
    metrics: Metrics
    grammars: Grammars
    derived: Derived
    _presets: Presets = field(default_factory=Presets)
    _warned: set[str] = field(default_factory=set)
    _listed: ModelList = field(default_factory=ModelList)
    _unknown: UnknownNames = field(default_factory=UnknownNames)
    _lock: Lock = field(default_factory=Lock)

    async def resolve(self, model: object, prompt_format: PromptFormat) -> Version | None:
        """The version that answers now, None for the base; RequestError where none may. Waits
        where it has to be made first."""
        version = await self.derived.completed(
            lambda: asyncio.to_thread(self._resolve, model, ASKING.get())
        )
        current_request().answered_by(version.reference if version else self.base.name)
        tell_error(version)
        trained = version.manifest.prompt_format if version else None
        if version and trained not in (None, prompt_format) and version.digest not in self._warned:
            self._warned.add(version.digest)
            self.progress.warn(
                f"{version.reference} was trained with {trained} prompts and gets "
                f"{prompt_format} ones"
            )
        return version

    def _resolve(self, model: object, key: str | None) -> Version | None:
        # Requests are resolved in several threads.
        with self._lock, self._unknown.remembered(self.registry, model):
            return self.derived.resolve(self.registry, self.base, model, self._why_not, key)

    def models(self) -> list[ServedModel]:
        """The base and every reference that would be answered now."""
        return self._listed.read(
            self.registry,
            self.base,
            lambda v: self.derived.why_not(v, self.base, self._why_not),
            self.derived.converts,
        )

    def tokens_of_text(self, prompt: str | list[int]) -> list[int]:
        """A completion's prompt; token ids are taken as they are."""
        if isinstance(prompt, str):
            return encode_prompt(prompt, self.tokenizer, "plain")
        if not all(0 <= token < len(self.tokenizer) for token in prompt):
            raise RequestError(
                HTTPStatus.BAD_REQUEST,
                f"a token id of the prompt is not in 0 to {len(self.tokenizer) - 1}",
                "prompt",
            )
        return prompt

    def apply_preset(self, body: GenerationRequest, version: Version | None) -> Preset:
        """Write the version's preset into a request where it is silent, and return it."""
        if version is None:
            return Preset()
        preset = self._presets.of(self.registry, version)
        apply_preset(body, preset, current_request().token_limit)
        return preset

    def tokens_of_chat(
        self,
        turns: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        chat_template: str | None = None,
    ) -> list[int]:
        """A chat, through `chat_template` or else the base's, up to where the assistant answers."""
        try:
            text = render_turns(turns, self.tokenizer, tools=tools, chat_template=chat_template)
        except AdzError as error:
            param = "tools" if tools else "messages"
            raise RequestError(HTTPStatus.BAD_REQUEST, error.message, param) from error
        return encode_prompt(text, self.tokenizer, "chat")

    def room(self, tokens: Sequence[int], asked: int | None, param: str) -> int:
        """How many tokens the answer may have: see `openai_api.room`."""
        return room(tokens, asked, self.context, param)

    def refusal(self, error: Exception) -> RequestError:
        """What a client is told: see `openai_api.refusal`."""
        return refusal(error, self.progress)

    def _why_not(self, version: Version) -> str | None:
        return why_not_servable(version, self.base) or why_not_method(version)


def why_not_method(version: Version) -> str | None:
    """Why nothing here opens the version; None where its method is known."""
    method = version.manifest.method
    if method in load_plugins().components(specs.Method):
        return None
    return f"no plugin here provides {method}, the method of {version.reference}"


def only_converted(version: Version) -> str | None:
    """Why a version is served as a LoRA only: its method has no plugin, but PEFT knows it."""
    return why_not_method(version) if may_convert(version) else None
