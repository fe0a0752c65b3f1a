"""What an adapter's requests get where they do not say otherwise: system prompt, sampling, chat
template.

A version's manifest never changes, so its preset is an attestation of the kind `preset`; the last
one holds, from the next request on. It is not pushed or pulled: what a stranger wants to be said
to the model is not taken over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from adapterhub.config import validate
from adapterhub.errors import AdzError, usage_error
from adapterhub.manifest import Version
from adapterhub.plugins import is_installed
from adapterhub.protocols import Registry

KIND = "preset"

_LONGEST_TEXT = 64 * 1024
_TOKEN_FIELDS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_SYSTEM_ROLES = ("system", "developer")


class Preset(BaseModel):
    """What is given, and only that. `chat_template` is Jinja, used instead of the base's;
    `chat_template_sha256` is the digest by which it was chosen, and is compared at each use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    system: Annotated[str, Field(min_length=1, max_length=_LONGEST_TEXT)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Annotated[tuple[str, ...], Field(max_length=16)] | None = None
    chat_template: Annotated[str, Field(min_length=1, max_length=_LONGEST_TEXT)] | None = None
    chat_template_sha256: str | None = None

    def given(self) -> dict[str, Any]:
        """What is set, as JSON."""
        return self.model_dump(mode="json", exclude_none=True)


def preset_of(registry: Registry, version: Version) -> Preset:
    """The preset of a version, empty where it has none.

    Raises AdzError for one that cannot be read, or whose template is not the one that was chosen.
    """
    found = registry.attestations(version, KIND)
    preset = (
        validate(Preset, found[-1]["body"], f"preset of {version.reference}") if found else None
    )
    if preset is None:
        return Preset()
    if preset.chat_template and digest_of(preset.chat_template) != preset.chat_template_sha256:
        raise AdzError(f"the chat template of {version.reference} is not the one that was chosen")
    return preset


def change_preset(registry: Registry, version: Version, changes: Mapping[str, Any]) -> Preset:
    """Set what `changes` holds and keep the rest; None takes a value away. Raises AdzError."""
    values = {**preset_of(registry, version).given(), **changes}
    kept = {name: value for name, value in values.items() if value is not None}
    if "chat_template" in kept:
        check_template(kept["chat_template"])
        kept["chat_template_sha256"] = digest_of(kept["chat_template"])
    else:
        kept.pop("chat_template_sha256", None)
    preset = validate(Preset, kept, "preset")
    registry.attest(version, KIND, preset.given())
    return preset


def read_template(registry: Registry, version: Version, given: str) -> str:
    """The chat template in the file `given`, or, for `sha256:...`, the version's own file with
    that digest. Raises AdzError."""
    if not given.startswith("sha256:"):
        return _text_of(Path(given))
    records = {**version.manifest.files, **version.manifest.artifacts}
    record = next((r for r in records.values() if r.sha256 == given), None)
    if record is None:
        listed = ", ".join(f"{name} {r.sha256}" for name, r in records.items() if "templ" in name)
        raise usage_error(f"{version.reference} has no file {given}", listed or "adz show lists it")
    with TemporaryDirectory() as folder:
        target = Path(folder) / "template"
        if not registry.copy_blob(record, target):
            raise AdzError(f"{given} of {version.reference} is missing", "adz fsck --repair")
        return _text_of(target)


def _text_of(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise usage_error(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise usage_error(f"{file} is not UTF-8 text") from error
    return text


def check_template(text: str) -> None:
    """Raise AdzError for what is not a template."""
    if not is_installed("jinja2"):
        raise AdzError("'jinja2' is not installed", "pip install 'adapterhub[serve]'")
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    extensions = ["jinja2.ext.loopcontrols"]
    environment = ImmutableSandboxedEnvironment(extensions=extensions, autoescape=False)
    try:
        environment.parse(text)
    except TemplateError as error:
        raise usage_error(f"this is not a chat template: {error}") from error


def digest_of(text: str) -> str:
    """`sha256:hex` of a text."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


class Presets:
    """The presets of the versions that a server answers with, read again when the registry
    changed."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, Preset]] = {}

    def of(self, registry: Registry, version: Version) -> Preset:
        """The version's preset as it is now; raises what `preset_of` raises."""
        revision = registry.revision()
        known, preset = self._known.get(version.digest, (-1, Preset()))
        if known != revision:
            preset = preset_of(registry, version)
            self._known[version.digest] = (revision, preset)
        return preset


def apply_preset(request: Any, preset: Preset, token_limit: int | None) -> None:
    """Write the preset into a request (a pydantic model of OpenAI's API) where it is silent.

    token_limit: what a server wrote into a request that did not say how many tokens it wants.
    The chat template is the engine's business.
    """
    fields = type(request).model_fields
    given = {name for name in request.model_fields_set if getattr(request, name) is not None}
    for name in ("temperature", "top_p", "stop"):
        value = getattr(preset, name)
        if value is not None and name in fields and name not in given:
            setattr(request, name, list(value) if isinstance(value, tuple) else value)
    if preset.max_tokens is not None and (token_limit or not given & set(_TOKEN_FIELDS)):
        name = "max_output_tokens" if "max_output_tokens" in fields else "max_tokens"
        if name in fields:
            setattr(request, name, min(preset.max_tokens, token_limit or preset.max_tokens))
    if preset.system is None:
        return
    if "messages" in fields and not any(_role(turn) in _SYSTEM_ROLES for turn in request.messages):
        first = type(request.messages[0]) if request.messages else dict
        turn = {"role": "system", "content": preset.system}
        request.messages = [turn if first is dict else first(**turn), *request.messages]
    elif "instructions" in fields and "instructions" not in given:
        request.instructions = preset.system


def _role(turn: Any) -> Any:
    return turn.get("role") if isinstance(turn, Mapping) else getattr(turn, "role", None)
