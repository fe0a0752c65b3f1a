"""Rows of the Stanford Alpaca layout, with LLaMA-Factory's columns `system` and `history`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapterhub.protocols import Example
from adapterhub_formats.columns import as_chat, text_column


class Alpaca:
    """`{"instruction": ..., "input": ..., "output": ...}` as a chat.

    `system` is a system message, `history` is a list of earlier `[question, answer]`.
    """

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether instruction and output are texts."""
        return isinstance(row.get("instruction"), str) and isinstance(row.get("output"), str)

    def example(self, row: Mapping[str, Any]) -> Example:
        """The instruction, then the input if there is one, as the user's message."""
        instruction = text_column(row, "instruction")
        given = text_column(row, "input", optional=True)
        system = text_column(row, "system", optional=True)
        turns = [{"role": "system", "content": system}] if system else []
        for question, answer in _history(row.get("history") or []):
            turns += _turn(question, answer)
        question = f"{instruction}\n\n{given}" if given else instruction
        return Example(messages=tuple(turns + _turn(question, text_column(row, "output"))))

    def row(self, example: Example) -> dict[str, Any]:
        """The last question as the instruction."""
        turns = list(as_chat(example))
        if example.tools or any("tool_calls" in t or t["role"] == "tool" for t in turns):
            raise ValueError("the alpaca layout has no tools")
        system = {"system": turns.pop(0)["content"]} if turns[0]["role"] == "system" else {}
        texts = [turn["content"] for turn in turns]
        if [turn["role"] for turn in turns] != ["user", "assistant"] * (len(turns) // 2):
            raise ValueError("the alpaca layout takes turns of the user and the assistant only")
        earlier = [list(pair) for pair in zip(texts[:-2:2], texts[1:-2:2], strict=True)]
        last = {"instruction": texts[-2], "input": "", "output": texts[-1]}
        return {**last, **system, **({"history": earlier} if earlier else {})}


def _turn(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _history(history: Any) -> list[list[str]]:
    if not isinstance(history, list) or not all(_is_pair(pair) for pair in history):
        raise ValueError("the column 'history' is not a list of [question, answer]")
    return history


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and [type(text) for text in pair] == [str, str]
