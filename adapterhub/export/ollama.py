"""Ollama's Modelfile: what to load, how a chat becomes a prompt, and where an answer ends."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapterhub.bases.digests import read_config
from adapterhub.data import stop_token
from adapterhub.data.prompt import PromptFormat
from adapterhub.errors import AdzError, usage_error
from adapterhub.export.subject import Subject
from adapterhub.models import load_tokenizer

_NAME = "Modelfile"
_HINT = "leave --ollama away, and write the TEMPLATE by hand"
Message = Mapping[str, str]


class Modelfile:
    """The Modelfile of a subject, which is new in `directory`.

    Raises AdzError before anything is written: where there is one already, or where the base's
    chat template cannot be said in Ollama's language.
    """

    def __init__(self, subject: Subject, directory: Path) -> None:
        self._path = directory / _NAME
        if self._path.exists():
            raise usage_error(f"{self._path} exists already", "name a file in another directory")
        self._lines = _lines(subject)

    def write(self, model: str, adapter: str | None = None) -> Path:
        """Write it for `model`, a file beside it or a model that Ollama knows, and return where.

        adapter: a LoRA in GGUF that stands over it.
        """
        head = [f"FROM {model}", *([f"ADAPTER {adapter}"] if adapter else [])]
        staging = self._path.with_name(f".{_NAME}.{os.getpid()}")
        staging.write_text("\n".join([*head, *self._lines]) + "\n", encoding="utf-8")
        staging.rename(self._path)
        return self._path


def _lines(subject: Subject) -> list[str]:
    tokenizer: Any = load_tokenizer(subject.base)
    manifest = subject.version.manifest if subject.version else None
    chat = manifest.prompt_format == "chat" if manifest else bool(tokenizer.chat_template)
    prompt_format: PromptFormat = "chat" if chat else "plain"
    template = "{{ .Prompt }}"
    if chat:
        turns = read_turns(tokenizer)
        bos = tokenizer.bos_token or ""
        # Where the runner puts the first token itself, the template must not.
        adds_bos = bool(bos) and tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id
        template = turns.template(bos if adds_bos else "")
    if '"""' in template:
        raise AdzError('the chat template holds """', _HINT)
    stops = {stop_token(tokenizer, prompt_format), tokenizer.eos_token_id}
    ends = read_config(Path(subject.base.path)).get("eos_token_id")
    stops.update(ends if isinstance(ends, list) else [ends])
    texts = [tokenizer.convert_ids_to_tokens(i) for i in sorted(stops - {None})]
    return [f'TEMPLATE """{template}"""', *(f'PARAMETER stop "{text}"' for text in texts)]


@dataclass(frozen=True, slots=True)
class Turns:
    """What a chat template writes around the messages.

    opening: first, where no system message stands first. around: before and after the content
    of each role. answer: where the answer begins.
    """

    opening: str
    around: Mapping[str, tuple[str, str]]
    answer: str

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt as these parts make it."""
        text = "" if messages[0]["role"] == "system" else self.opening
        for message in messages:
            before, after = self.around[message["role"]]
            text += before + message["content"] + after
        return text + self.answer

    def template(self, strip: str = "") -> str:
        """In the language of Go's text/template, with Ollama's `.Messages`.

        strip: what stands first in the chat template and is left out here.
        """
        opening = self.opening.removeprefix(strip)
        parts = ["{{ range $i, $_ := .Messages }}"]
        if opening:
            parts.append(
                '{{ if eq $i 0 }}{{ if ne .Role "system" }}'
                + _literal(opening)
                + "{{ end }}{{ end }}"
            )
        for number, (role, (before, after)) in enumerate(self.around.items()):
            if role == "system" and strip:
                before = before.removeprefix(strip)
            condition = f'if eq .Role "{role}"'
            parts.append("{{ " + ("else " if number else "") + condition + " }}")
            parts.append(_literal(before) + "{{ .Content }}" + _literal(after))
        return "".join(parts) + "{{ end }}{{ end }}" + _literal(self.answer)


def read_turns(tokenizer: Any) -> Turns:
    """Take the chat template apart by rendering it, and prove that the parts make the whole.

    Raises AdzError where they do not: a template that looks at more than role and order.
    """
    if not tokenizer.chat_template:
        raise AdzError("the base's tokenizer has no chat template", _HINT)
    user, answer, system = ({"role": r, "content": f"the {r} says"} for r in _ROLES)
    try:
        turns = _take_apart(tokenizer, user, answer, system)
        for messages in ([user], [system, user], [user, answer, user], [system, user, answer] * 2):
            chat = [m for i, m in enumerate(messages) if i == 0 or m is not system]
            chat = chat if chat[-1] is user else [*chat, user]
            if turns.render(chat) != _render(tokenizer, chat, answer=True):
                raise ValueError("the parts do not make the whole")
    # Templates are foreign code: they refuse roles and orders by raising whatever they like.
    except Exception as error:
        raise AdzError(
            f"the base's chat template cannot be said in Ollama's language: {error}", _HINT
        ) from error
    return turns


_ROLES = ("user", "assistant", "system")


def _take_apart(tokenizer: Any, user: Message, answer: Message, system: Message) -> Turns:
    def parts(*messages: Message, ask: bool = False) -> list[str]:
        text = _render(tokenizer, messages, answer=ask)
        found = []
        for message in messages:
            before, mark, text = text.partition(message["content"])
            if not mark:
                raise ValueError(f"it does not show what the {message['role']} says")
            found.append(before)
        return [*found, text]

    first, after_user = parts(user)
    _, user_to_answer, after_answer = parts(user, answer)
    _, _, answer_to_user, asked = parts(user, answer, user, ask=True)
    before_system, system_to_user, _ = parts(system, user)
    before_user = answer_to_user.removeprefix(after_answer)
    return Turns(
        opening=first.removesuffix(before_user),
        around={
            "system": (before_system, system_to_user.removesuffix(before_user)),
            "user": (before_user, after_user),
            "assistant": (user_to_answer.removeprefix(after_user), after_answer),
        },
        answer=asked.removeprefix(after_user),
    )


def _render(tokenizer: Any, messages: Sequence[Message], *, answer: bool) -> str:
    return str(
        tokenizer.apply_chat_template(
            [dict(message) for message in messages], tokenize=False, add_generation_prompt=answer
        )
    )


def _literal(text: str) -> str:
    """Text that Go's templates write as it is."""
    return text.replace("{{", '{{ "{{" }}')
