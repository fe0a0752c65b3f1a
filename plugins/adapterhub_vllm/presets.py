"""The presets of versions, written into vLLM's requests before they are rendered."""

from __future__ import annotations

from typing import Any

from adapterhub.serve.metrics import current_request
from adapterhub.serve.preset import apply_preset
from adapterhub_vllm.contract import check_signatures


class ChosenTemplate(str):
    """A chat template that this machine's user chose; one that a client sent is a plain str."""

    __slots__ = ()


def install() -> None:
    """Let vLLM take a chosen template, while it goes on refusing those of clients. vLLM renders
    both in Jinja's immutable sandbox. Raises AdzError where vLLM is not as we know it."""
    from vllm.renderers.online_renderer import OnlineRenderer

    validate = OnlineRenderer.validate_chat_template
    check_signatures(
        {
            validate: (
                "self", "request_chat_template", "chat_template_kwargs",
                "trust_request_chat_template",
            )
        }
    )  # fmt: skip

    def validate_chat_template(
        self: Any,
        request_chat_template: str | None,
        chat_template_kwargs: dict[str, Any] | None,
        trust_request_chat_template: bool,
    ) -> Any:
        chosen = isinstance(request_chat_template, ChosenTemplate)
        asked = None if chosen else request_chat_template
        return validate(self, asked, chat_template_kwargs, trust_request_chat_template)

    OnlineRenderer.validate_chat_template = validate_chat_template


def fill_in(request: Any) -> None:
    """Write the preset of the version that answers into a request where it is silent."""
    seen = current_request()
    preset = seen.preset
    if preset is None:
        return
    apply_preset(request, preset, seen.token_limit)
    if preset.chat_template and getattr(request, "chat_template", "") is None:
        request.chat_template = ChosenTemplate(preset.chat_template)
