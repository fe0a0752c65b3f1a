"""What a client gets, in the shapes of the OpenAI API."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from adapterhub.generate import Continuation


@dataclass(frozen=True, slots=True)
class Reply:
    """One response: its id, and the model that answers, as the immutable reference."""

    kind: Literal["chat", "text"]
    model: str
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def whole(
        self, choices: Sequence[tuple[Continuation, dict[str, Any] | None]], prompt_tokens: int
    ) -> dict[str, Any]:
        """The body of a response that is not streamed; each choice with its logprobs."""
        return {
            **self._head("chat.completion" if self.kind == "chat" else "text_completion"),
            "choices": [
                {
                    "index": index,
                    **(
                        {"message": {"role": "assistant", "content": answer.text}}
                        if self.kind == "chat"
                        else {"text": answer.text}
                    ),
                    "logprobs": logprobs,
                    "finish_reason": answer.finish,
                }
                for index, (answer, logprobs) in enumerate(choices)
            ],
            "usage": usage([answer for answer, _ in choices], prompt_tokens),
        }

    def piece(self, index: int, text: str | None, finish: str | None = None) -> dict[str, Any]:
        """One event of a stream. None as `text` opens a chat's answer."""
        if self.kind == "text":
            content: dict[str, Any] = {"text": text or ""}
        elif text is None:
            content = {"delta": {"role": "assistant", "content": ""}}
        else:
            content = {"delta": {"content": text} if text else {}}
        choice = {"index": index, **content, "logprobs": None, "finish_reason": finish}
        return {**self._stream_head(), "choices": [choice]}

    def last(self, answers: Sequence[Continuation], prompt_tokens: int) -> dict[str, Any]:
        """The event that counts a stream's tokens."""
        return {**self._stream_head(), "choices": [], "usage": usage(answers, prompt_tokens)}

    def _stream_head(self) -> dict[str, Any]:
        return self._head("chat.completion.chunk" if self.kind == "chat" else "text_completion")

    def _head(self, kind: str) -> dict[str, Any]:
        prefix = "chatcmpl" if self.kind == "chat" else "cmpl"
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
        }


def usage(answers: Sequence[Continuation], prompt_tokens: int) -> dict[str, int]:
    """How many tokens were read and written."""
    written = sum(len(answer.tokens) for answer in answers)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": written,
        "total_tokens": prompt_tokens + written,
    }


def completion_logprobs(answer: Continuation, tokenizer: Any) -> dict[str, Any]:
    """The `logprobs` of a completion: natural logarithms, before temperature."""
    tokens = [_text(tokenizer, score.token) for score in answer.scores]
    ends = [sum(map(len, tokens[:count])) for count in range(len(tokens))]
    return {
        "tokens": tokens,
        "token_logprobs": [score.logprob for score in answer.scores],
        "top_logprobs": [
            # Tokens that are half a character share a text; the likeliest, which is first, stays.
            {_text(tokenizer, token): value for token, value in reversed(score.top)}
            for score in answer.scores
        ],
        "text_offset": ends,
    }


def _text(tokenizer: Any, token: int) -> str:
    text: str = tokenizer.decode([token])
    return text
