"""The one place where vLLM's HTTP layer is changed: every request's `model` is ours to resolve.

vLLM answers a request without `model` with the base, keeps an adapter's name for as long as it
runs, and takes paths from clients on its management routes. All routes that generate or
tokenise ask `BaseServing` which model is meant, so replacing its two methods covers them all.
"""

from __future__ import annotations

import functools
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from adapterhub.errors import AdzError
from adapterhub.serve.errors import RequestError
from adapterhub.serve.metrics import current_request
from adapterhub.serve.models import ServedModel
from adapterhub_vllm.adapters import Adapters
from adapterhub_vllm.contract import check_accepts, check_keyword, check_signatures
from adapterhub_vllm.presets import fill_in
from adapterhub_vllm.settings import ServerSettings
from adapterhub_vllm.soft_prompts import SoftPrompt

if TYPE_CHECKING:
    from vllm.entrypoints.serve.engine.protocol import ModelCard, ModelList

    from adapterhub_vllm.residents import Entry

OWNER = "adapterhub"
"""`owned_by` in `/v1/models`: shows `adz serve` that this file is at work in the server."""


def install(settings: ServerSettings) -> Adapters:
    """Replace the methods, after checking that they are the ones we know; return what answers
    in their place. Raises AdzError."""
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels
    from vllm.entrypoints.serve.engine.serving import BaseServing
    from vllm.inputs.engine import embeds_input
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

    check_signatures(
        {
            BaseServing._check_model: ("self", "request"),
            BaseServing._maybe_get_adapters: ("self", "request", "supports_default_mm_loras"),
            BaseServing.create_error_response: ("message", "err_type", "status_code", "param"),
            OpenAIServingModels.show_available_models: ("self",),
            OpenAIServingModels.model_name: ("self", "lora_request"),
            AsyncLLM.add_lora: ("self", "lora_request"),
            AsyncLLM.remove_lora: ("self", "lora_id"),
            embeds_input: (
                "prompt_embeds", "prompt", "cache_salt", "prompt_token_ids", "is_token_ids",
            ),
        }
    )  # fmt: skip
    # vLLM 0.31 has one field more.
    check_accepts(LoRARequest, ("lora_name", "lora_int_id", "lora_path"))
    check_keyword(AsyncLLM.generate, "lora_request")
    adapters = Adapters(settings)
    BaseServing._check_model = _check_model(adapters, settings)
    BaseServing._maybe_get_adapters = _get_adapter(adapters, settings)
    OpenAIServingModels.show_available_models = _show_models(adapters, settings)
    AsyncLLM.generate = _generate(adapters, AsyncLLM.generate)
    return adapters


def _check_model(adapters: Adapters, settings: ServerSettings) -> Any:
    async def check_model(self: Any, request: Any) -> Any:
        """None when `model` is served, else the error. `model` becomes the version's own
        reference, which cannot come to mean other weights before the request is answered."""
        try:
            entry = await adapters.request_for(request.model)
        except RequestError as error:
            current_request().headers |= error.headers
            return self.create_error_response(error.message, error.type, error.status, error.param)
        except AdzError as error:
            return self.create_error_response(
                str(error), "InternalServerError", HTTPStatus.INTERNAL_SERVER_ERROR
            )
        request.model = entry.lora_name if entry else settings.base
        current_request().answered_by(request.model)
        fill_in(request)
        return None

    return check_model


def _get_adapter(adapters: Adapters, settings: ServerSettings) -> Any:
    from vllm.exceptions import VLLMNotFoundError

    def maybe_get_adapters(
        self: Any, request: Any, supports_default_mm_loras: bool = False
    ) -> Entry | None:
        """The entry of a request that `_check_model` has seen, None for the base."""
        if request.model == settings.base:
            return None
        entry = adapters.loaded(request.model or "")
        if entry is None:
            raise VLLMNotFoundError(f"the model {request.model!r} was not resolved")
        return entry

    return maybe_get_adapters


def _generate(adapters: Adapters, generate: Any) -> Any:
    # Who else looks at vLLM's method must see its parameters.
    @functools.wraps(generate)
    def generate_held(
        self: Any,
        prompt: Any,
        sampling_params: Any,
        *arguments: Any,
        lora_request: Entry | None = None,
        **options: Any,
    ) -> Any:
        """vLLM's own answers; the adapter stays loaded until they end."""
        plain = functools.partial(generate, self)
        given = (prompt, sampling_params, *arguments)
        if lora_request is None:
            return plain(*given, **options)
        if isinstance(lora_request, SoftPrompt):
            return adapters.held(lora_request, lora_request.answers(plain, *given, **options))
        answers = plain(*given, lora_request=lora_request, **options)
        return adapters.held(lora_request, answers)

    return generate_held


def _show_models(adapters: Adapters, settings: ServerSettings) -> Any:
    from vllm.entrypoints.serve.engine.protocol import ModelCard, ModelList

    def card(model: ServedModel, length: int) -> ModelCard:
        if model.version is None:
            return ModelCard(id=model.id, owned_by=OWNER, root=settings.base, max_model_len=length)
        return ModelCard(
            id=model.id,
            owned_by=OWNER,
            root=model.version.reference,
            parent=settings.base,
            max_model_len=length,
            digest=model.version.digest,
            converted=model.converted,
        )

    async def show_available_models(self: Any) -> ModelList:
        """The base and every reference of the registry that would be answered now."""
        length = self.model_config.max_model_len
        return ModelList(data=[card(model, length) for model in await adapters.models()])

    return show_available_models
