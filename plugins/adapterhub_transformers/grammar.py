"""Answers that follow a JSON schema, or are a call of a tool: llguidance says which tokens may
come next."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from http import HTTPStatus
from typing import Any

import numpy as np
import torch

from adapterhub.generate import TokenFilter
from adapterhub.plugins import is_installed
from adapterhub.serve.errors import RequestError

# As Python and most training data write JSON: a model at a loss would else fill its answer with
# the white space that JSON allows.
_SPACING = {
    "x-guidance": {
        "whitespace_flexible": False,
        "item_separator": ", ",
        "key_separator": ": ",
    }
}


class GrammarFilter:
    """A row's place in a grammar."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        """(vocabulary,) logits in; a copy with -inf for what the grammar does not allow."""
        # One byte a token, 0 where it may not come; a model may have more logits than tokens.
        allowed = np.frombuffer(self._matcher.compute_logit_bias(), np.uint8) != 0
        if self._matcher.is_error():
            raise RuntimeError(f"the grammar failed: {self._matcher.get_error()}")
        known = torch.zeros(logits.shape, dtype=torch.bool)
        known[: len(allowed)] = torch.from_numpy(allowed[: len(logits)].copy())
        return logits.masked_fill(~known.to(logits.device), float("-inf"))

    def accept(self, token: int) -> None:
        """`token` was chosen."""
        self._matcher.consume_token(token)


class Grammars:
    """Makes grammars over one tokenizer. `stop_ids` may come where a grammar is complete."""

    def __init__(self, tokenizer: Any, stop_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._stop_ids = sorted(stop_ids)

    def schema(self, schema: Mapping[str, Any], param: str) -> Constraint:
        """Answers that are JSON of this schema. RequestError where it cannot be followed."""
        return self._compile("grammar_from_json_schema", json.dumps({**schema, **_SPACING}), param)

    def tool_call(self, tools: Sequence[Mapping[str, Any]]) -> Constraint:
        """Answers that are one call, in the style of Hermes, of one of these functions."""
        calls = [
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool["name"]},
                    "arguments": tool.get("parameters") or {"type": "object"},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
            for tool in tools
        ]
        schema = json.dumps({"anyOf": calls, **_SPACING})
        lark = f'start: "<tool_call>\\n" call "\\n</tool_call>"\ncall: %json {schema}\n'
        return self._compile("grammar_from_lark", lark, "tools")

    def _compile(self, kind: str, text: str, param: str) -> Constraint:
        if not is_installed("llguidance"):
            raise RequestError(
                HTTPStatus.BAD_REQUEST,
                "this server cannot follow a schema: llguidance is not installed there",
                param,
            )
        from llguidance import LLMatcher

        try:
            grammar = getattr(LLMatcher, kind)(text)
        except (ValueError, TypeError) as error:
            raise _refused(str(error), param) from error
        problem = LLMatcher.validate_grammar(grammar, self._tokens)
        if problem:
            raise _refused(problem, param)
        return Constraint(self._tokens, grammar)

    @cached_property
    def _tokens(self) -> Any:
        from llguidance.hf import from_tokenizer

        return from_tokenizer(self._tokenizer, eos_token=self._stop_ids)


class Constraint:
    """Makes the filter of each row of a request."""

    def __init__(self, tokens: Any, grammar: str) -> None:
        self._tokens, self._grammar = tokens, grammar

    def __call__(self) -> TokenFilter:
        """A filter at the beginning of the grammar."""
        from llguidance import LLMatcher

        return GrammarFilter(LLMatcher(self._tokens, self._grammar))


def _refused(reason: str, param: str) -> RequestError:
    text = " ".join(reason.split())[:300]
    return RequestError(HTTPStatus.BAD_REQUEST, f"this schema cannot be followed: {text}", param)
