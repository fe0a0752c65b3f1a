"""What a client gets, in the shapes of the OpenAI API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapterhub.generate import Continuation, TokenScore
from adapterhub.serve.openai_api import Envelope, usage
from adapterhub_transformers.tools import ToolReader


@dataclass(frozen=True, slots=True)
class Reply(Envelope):
    """One response. scored: log-probabilities are told; tooled: the answer may call tools."""

    tokenizer: Any
    scored: bool = False
    tooled: bool = False

    def whole(self, answers: Sequence[Continuation], prompt_tokens: int) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        choices = [self._choice(index, answer) for index, answer in enumerate(answers)]
        return self.body(choices, usage_of(answers, prompt_tokens))

    def _choice(self, index: int, answer: Continuation) -> dict[str, Any]:
        logprobs = self.logprobs(answer.scores, 0) if self.scored else None
        choice: dict[str, Any] = {
            "index": index,
            "logprobs": logprobs,
            "finish_reason": answer.finish,
        }
        if self.kind == "text":
            return {**choice, "text": answer.text}
        message: dict[str, Any] = {"role": "assistant", "content": answer.text}
        if self.tooled:
            reader = ToolReader()
            content = reader.feed(answer.text) + reader.end()
            if reader.calls:
                message |= {"content": content.strip() or None, "tool_calls": reader.calls}
                choice["finish_reason"] = "tool_calls"
        return {**choice, "message": message}

    def logprobs(self, scores: Sequence[TokenScore], offset: int) -> dict[str, Any]:
        """Natural logarithms, before temperature; `offset`: characters before the first token."""
        if self.kind == "text":
            return _completion_logprobs(scores, self.tokenizer, offset)
        return {"content": [_chat_score(score, self.tokenizer) for score in scores]}


class ChoiceStream:
    """The events of one choice of a stream."""

    def __init__(self, reply: Reply, index: int) -> None:
        self._reply, self._index = reply, index
        self._reader = ToolReader() if reply.tooled else None
        self._calls = 0
        self._offset = 0

    def opening(self) -> list[dict[str, Any]]:
        """A chat says first who speaks."""
        if self._reply.kind == "text":
            return []
        delta = {"delta": {"role": "assistant", "content": ""}}
        return [self._reply.piece(self._index, delta)]

    def piece(self, text: str, scores: Sequence[TokenScore]) -> list[dict[str, Any]]:
        """New text, and the scores of its tokens."""
        logprobs = self._reply.logprobs(scores, self._offset) if scores else None
        self._offset += len(text)
        content = self._reader.feed(text) if self._reader else text
        events = []
        if content or logprobs:
            events.append(self._reply.piece(self._index, self._content(content), None, logprobs))
        return events + self._new_calls()

    def end(self, finish: str | None) -> list[dict[str, Any]]:
        """What is left, and why the answer ended."""
        rest = self._reader.end() if self._reader else ""
        events = [self._reply.piece(self._index, self._content(rest))] if rest else []
        events += self._new_calls()
        finish = "tool_calls" if self._calls else finish
        return [*events, self._reply.piece(self._index, self._content(""), finish)]

    def _content(self, text: str) -> dict[str, Any]:
        if self._reply.kind == "text":
            return {"text": text}
        return {"delta": {"content": text} if text else {}}

    def _new_calls(self) -> list[dict[str, Any]]:
        calls = self._reader.calls[self._calls :] if self._reader else []
        first = self._calls
        self._calls += len(calls)
        return [
            self._reply.piece(self._index, {"delta": {"tool_calls": [{"index": place, **call}]}})
            for place, call in enumerate(calls, first)
        ]


def usage_of(answers: Sequence[Continuation], prompt_tokens: int) -> dict[str, int]:
    """How many tokens were read and written."""
    return usage(prompt_tokens, sum(len(answer.tokens) for answer in answers))


def _completion_logprobs(
    scores: Sequence[TokenScore], tokenizer: Any, offset: int
) -> dict[str, Any]:
    tokens = [_text(tokenizer, score.token) for score in scores]
    return {
        "tokens": tokens,
        "token_logprobs": [score.logprob for score in scores],
        "top_logprobs": [
            # Tokens that are half a character share a text; the likeliest, which is first, stays.
            {_text(tokenizer, token): value for token, value in reversed(score.top)}
            for score in scores
        ],
        "text_offset": [offset + sum(map(len, tokens[:count])) for count in range(len(tokens))],
    }


def _chat_score(score: TokenScore, tokenizer: Any) -> dict[str, Any]:
    return {
        **_chat_token(tokenizer, score.token, score.logprob),
        "top_logprobs": [_chat_token(tokenizer, token, value) for token, value in score.top],
    }


def _chat_token(tokenizer: Any, token: int, logprob: float) -> dict[str, Any]:
    text = _text(tokenizer, token)
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def _text(tokenizer: Any, token: int) -> str:
    text: str = tokenizer.decode([token])
    return text
