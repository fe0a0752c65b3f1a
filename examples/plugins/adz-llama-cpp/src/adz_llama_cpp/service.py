"""What is served: which version a request means, its GGUF file, and its prompt as tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import Lock
from typing import Any

from adapterhub import AdzError, specs
from adapterhub.convert.source import may_convert
from adapterhub.data import encode_prompt, render_turns
from adapterhub.data.prompt import PromptFormat
from adapterhub.derived.served import Derived, tell_error
from adapterhub.errors import EXIT_VERIFICATION
from adapterhub.manifest import BaseRecord, Version
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Progress, Registry
from adapterhub.serve.errors import RequestError
from adapterhub.serve.hold import Hold
from adapterhub.serve.metrics import Metrics, current_request
from adapterhub.serve.models import ModelList, ServedModel, why_not_servable
from adapterhub.serve.openai_api import refusal, room
from adapterhub.serve.preset import Preset, Presets, apply_preset
from adapterhub.serve.sticky import ASKING
from adapterhub.serve.unknown import UnknownNames
from adz_llama_cpp.files import GgufFiles
from adz_llama_cpp.requests import GenerationRequest
from adz_llama_cpp.runner import Job, Runner


def why_not_method(version: Version) -> str | None:
    """Why llama.cpp does not serve the version's method as it is; None where it does."""
    method = load_plugins().components(specs.Method).get(version.manifest.method)
    # No fact of a method says "a plain LoRA"; vLLM serves nothing else.
    if method is not None and method.storage == "peft" and method.vllm:
        return None
    return f"llama.cpp cannot serve {version.reference}: its method is {version.manifest.method}"


def only_converted(version: Version) -> str | None:
    """Why a version is served as a LoRA only; None where it is served as it is, or not at all."""
    return why_not_method(version) if may_convert(version) else None


@dataclass(frozen=True, slots=True)
class Service:
    """`context` is the number of tokens that prompt and answer may have together."""

    registry: Registry
    base: BaseRecord
    tokenizer: Any
    files: GgufFiles
    runner: Runner
    context: int
    progress: Progress
    metrics: Metrics
    derived: Derived
    _hold: Hold = field(default_factory=lambda: Hold("llama-cpp"))
    _presets: Presets = field(default_factory=Presets)
    _listed: ModelList = field(default_factory=ModelList)
    _unknown: UnknownNames = field(default_factory=UnknownNames)
    _lock: Lock = field(default_factory=Lock)

    async def resolve(self, model: object) -> Version | None:
        """The version that answers now, None for the base; RequestError where none may. Waits
        where it has to be made first."""
        key = ASKING.get()
        version = await self.derived.completed(lambda: asyncio.to_thread(self._resolve, model, key))
        current_request().answered_by(self.name(version))
        tell_error(version)
        return version

    def _resolve(self, model: object, key: str | None) -> Version | None:
        # Requests are resolved in several threads.
        with self._lock, self._unknown.remembered(self.registry, model):
            version = self.derived.resolve(self.registry, self.base, model, self._why_not, key)
            if version is not None:
                self._hold.add(self.registry, version)
            return version

    def name(self, version: Version | None) -> str:
        """The immutable reference of what answers."""
        return version.reference if version else self.base.name

    def models(self) -> list[ServedModel]:
        """The base and every reference that would be answered now."""
        return self._listed.read(
            self.registry,
            self.base,
            lambda v: self.derived.why_not(v, self.base, self._why_not),
            self.derived.converts,
        )

    def job(self, version: Version | None, tokens: Sequence[int], body: GenerationRequest) -> Job:
        """What the runner is asked. Raises RequestError where the adapter has no GGUF file, or
        prompt and answer do not fit."""
        limit = getattr(body, "max_completion_tokens", None) or body.max_tokens
        sampling = body.sampling(room(tokens, limit, self.context, "prompt"))
        file = None
        if version is not None:
            self.registry.admit(version, self.base)
            try:
                file = self.files.adapter(version)
            except AdzError as error:
                if error.exit_code == EXIT_VERIFICATION:
                    raise
                raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, error.message) from error
        return Job(self.name(version), file, tokens, sampling)

    def apply_preset(self, body: GenerationRequest, version: Version | None) -> Preset:
        """Write the version's preset into a request where it is silent, and return it."""
        preset = self._presets.of(self.registry, version) if version else Preset()
        apply_preset(body, preset, current_request().token_limit)
        return preset

    def tokens_of_text(self, prompt: str | list[int]) -> list[int]:
        """A completion's prompt; token ids are taken as they are."""
        if isinstance(prompt, str):
            return encode_prompt(prompt, self.tokenizer, "plain")
        if not all(0 <= token < len(self.tokenizer) for token in prompt):
            raise _bad_request(f"token ids are 0 to {len(self.tokenizer) - 1}", "prompt")
        return prompt

    def tokens_of_chat(self, turns: Sequence[dict[str, Any]], template: str | None) -> list[int]:
        """A chat through `template`, or else the base's, up to where the assistant answers."""
        try:
            text = render_turns(turns, self.tokenizer, chat_template=template)
        except AdzError as error:
            raise _bad_request(error.message, "messages") from error
        return encode_prompt(text, self.tokenizer, "chat")

    def warn_of_format(self, version: Version | None, prompt_format: PromptFormat) -> None:
        """A line where the version was trained with other prompts than it gets."""
        trained = version.manifest.prompt_format if version else None
        if version and trained not in (None, prompt_format):
            self.progress.warn(
                f"{version.reference} was trained with {trained} prompts, this is {prompt_format}"
            )

    def refusal(self, error: Exception) -> RequestError:
        """What a client is told of an error."""
        return refusal(error, self.progress)

    def _why_not(self, version: Version) -> str | None:
        return why_not_servable(version, self.base) or why_not_method(version)


def _bad_request(reason: str, param: str) -> RequestError:
    return RequestError(HTTPStatus.BAD_REQUEST, reason, param)
