"""Rows with a better and a worse answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from adapterhub.protocols import Example
from adapterhub_formats.chats import Turns, check_answered, read_tools, read_turns, tools_column
from adapterhub_formats.columns import text_column


class Preference:
    """`{"prompt": ..., "chosen": ..., "rejected": ...}`: texts, or lists of messages.

    Without `prompt` it is what chosen and rejected have in common at their beginning: whole
    messages, or the text up to a word's beginning.
    """

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether there are two answers of one kind."""
        both = [row.get("chosen"), row.get("rejected")]
        return any(all(isinstance(part, kind) for part in both) for kind in (str, list))

    def example(self, row: Mapping[str, Any]) -> Example:
        """The prompt with the better answer, and the worse one's text."""
        if isinstance(row.get("chosen"), list):
            found = _chat(row)
            worse = found.rejected
            better = found.messages[-1]["content"]
        else:
            found = _texts(row)
            better, worse = found.completion, found.rejected
        if better == worse:
            raise ValueError("chosen and rejected are the same")
        return found

    def row(self, example: Example) -> dict[str, Any]:
        """The three columns, the prompt explicit."""
        if not example.messages:
            texts = {"chosen": example.completion, "rejected": example.rejected}
            return {"prompt": example.prompt, **texts}
        *before, better = (dict(turn) for turn in example.messages)
        if "tool_calls" in better:
            raise ValueError("a preferred tool call has no rejected text")
        worse = {"role": "assistant", "content": example.rejected}
        answers = {"chosen": [better], "rejected": [worse]}
        return {"prompt": before, **answers, **tools_column(example)}


def _chat(row: Mapping[str, Any]) -> Example:
    chosen, rejected = read_turns(row, "chosen"), read_turns(row, "rejected")
    asked = row.get("prompt")
    if isinstance(asked, list):
        before = read_turns(row, "prompt")
    else:
        same = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
        before = tuple(turn for turn, _ in same)
        chosen, rejected = chosen[len(before) :], rejected[len(before) :]
        _check_question(asked, before)
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if len(answer) != 1:
            raise ValueError(f"{name} is {len(answer)} messages after the prompt, not one")
        if "tool_calls" in answer[0] or not answer[0]["content"]:
            raise ValueError(f"{name} is no text")
        check_answered((*before, *answer))
    return Example(messages=before + chosen, rejected=rejected[0]["content"], tools=read_tools(row))


def _check_question(asked: Any, before: Turns) -> None:
    """A prompt beside whole chats repeats the question in them (as in UltraFeedback)."""
    if asked is not None and (not before or asked != before[-1]["content"]):
        raise ValueError("the column 'prompt' is not what chosen and rejected begin with")


def _texts(row: Mapping[str, Any]) -> Example:
    chosen, rejected = text_column(row, "chosen"), text_column(row, "rejected")
    if row.get("prompt") is not None:
        return Example(prompt=text_column(row, "prompt"), completion=chosen, rejected=rejected)
    length = sum(1 for _ in takewhile(lambda p: p[0] == p[1], zip(chosen, rejected, strict=False)))
    # A word is not cut, and the space before it is the answer's.
    if re.match(r"\w", chosen[length:]) or re.match(r"\w", rejected[length:]):
        length = len(re.sub(r"\w+\Z", "", chosen[:length]))
    if chosen[:length].endswith(" "):
        length -= 1
    prompt, better, worse = chosen[:length], chosen[length:], rejected[length:]
    if not prompt:
        raise ValueError("chosen and rejected have no beginning in common, and there is no prompt")
    if not (better and worse):
        raise ValueError("chosen and rejected differ only in that one goes on, and have no prompt")
    return Example(prompt=prompt, completion=better, rejected=worse)
