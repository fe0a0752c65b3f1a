"""What vLLM lets a model write as a tool's arguments, by the grammar that it is held to."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("vllm")
xgrammar = pytest.importorskip("xgrammar")

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
CHOICES = {"named": {"type": "function", "function": {"name": "find"}}, "required": "required"}


def accepts(level: str, choice: Any, arguments: str) -> bool:
    """Whether a model that calls the tool of a request, which does not say `strict`, may write
    `arguments`; level: of --tool-strict-level."""
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.tool_parsers.structural_tag_registry import get_model_structural_tag
    from vllm.tool_parsers.tool_strict_level import ToolStrictLevel
    from xgrammar.testing import _is_grammar_accept_string

    request = ChatCompletionRequest(
        model="sql",
        messages=[{"role": "user", "content": "Where?"}],
        tools=[{"type": "function", "function": {"name": "find", "parameters": SCHEMA}}],
        tool_choice=choice,
    )
    tag = get_model_structural_tag(
        model="hermes",
        tools=request.tools,
        tool_choice=request.tool_choice,
        reasoning=False,
        strict_level=ToolStrictLevel[level.upper()],
    )
    text = f'<tool_call>{{"name": "find", "arguments": {arguments}}}</tool_call>'
    return bool(_is_grammar_accept_string(xgrammar.Grammar.from_structural_tag(tag), text))


@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_arguments_keep_to_the_schema_at_the_level_that_adz_serve_sets(choice: Any) -> None:
    from adapterhub_vllm.tools import with_strict_tools

    level = with_strict_tools(("--tool-call-parser", "hermes"))[-1]
    assert accepts(level, choice, '{"city": "Rome"}')
    assert not accepts(level, choice, '{"city": "Oslo"}')
    assert not accepts(level, choice, '"{\\"city\\": \\"Rome\\"}"')


def test_vllm_by_itself_lets_arguments_be_a_text() -> None:
    """Once it does not, tools.py can go."""
    assert accepts("auto", CHOICES["named"], '"{\\"city\\": \\"Rome\\"}"')
