"""What the loss sees under the chat templates of several families: golden files to be read.

In `masks/` what stands between [[ and ]] is not scored. The templates in `templates/` are the
families' own, shortened.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from adapterhub.data import stop_token
from adapterhub.errors import AdzError
from adapterhub.protocols import Example
from adapterhub.train.row_gates import preview
from adapterhub.train.rows import make_rows

HERE = Path(__file__).parent


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
ONE = (turn("user", "Hi"), turn("assistant", " Yes?\n"))
CASES = {
    "one turn": Example(messages=ONE),
    "two turns": Example(messages=(*ONE, turn("user", "Bye"), turn("assistant", "See you"))),
    "system": Example(messages=(turn("system", "Be kind."), *ONE)),
    "prompt and completion": Example(prompt="2 + 2", completion=" 4"),
    "tool call": Example(
        messages=(turn("user", "Warm in Rome?"), turn("assistant", "", tool_calls=[CALL])),
        tools=(TOOL,),
    ),
    "tool answer": Example(
        messages=(
            turn("user", "Warm in Rome?"),
            turn("assistant", "", tool_calls=[CALL]),
            turn("tool", "31 degrees"),
            turn("assistant", "Yes."),
        ),
        tools=(TOOL,),
    ),
}
# Template -> special tokens (the first, the end of text, others), the stop token.
FAMILIES: dict[str, tuple[list[str], str]] = {
    "llama3": (
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
         "<|eot_id|>"],
        "<|eot_id|>",
    ),
    "qwen": (["<|endoftext|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"], "<|im_end|>"),
    "gemma": (["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"], "<end_of_turn>"),
    "mistral": (["<s>", "</s>"], "</s>"),
    "smollm2": (["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
}  # fmt: skip


def tokenizer_of(family: str, directory: Path) -> Any:
    """The tiny base's tokenizer, one token a byte, with a family's special tokens."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    special, _ = FAMILIES[family]
    tokenizer.add_special_tokens({"bos_token": special[0], "eos_token": special[1]})
    tokenizer.add_tokens(special, special_tokens=True)
    tokenizer.chat_template = (HERE / "templates" / f"{family}.jinja").read_text()
    return tokenizer


def shown(example: Example, tokenizer: Any, *, every_answer: bool = False) -> str:
    try:
        (row,) = make_rows([example], tokenizer, "chat", 4096, every_answer=every_answer)
    except AdzError as error:
        return f"refused: {error}"
    return preview(row, tokenizer, ("[[", "]]"))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_masks_are_those_of_the_golden_files(family: str, tiny_base_dir: Path) -> None:
    tokenizer = tokenizer_of(family, tiny_base_dir)
    made = "".join(f"# {name}\n{shown(CASES[name], tokenizer)}\n\n" for name in CASES)
    assert made == (HERE / "masks" / f"{family}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_answer_ends_with_the_stop_token_inside_the_loss(
    family: str, tiny_base_dir: Path
) -> None:
    tokenizer = tokenizer_of(family, tiny_base_dir)
    stop = stop_token(tokenizer, "chat")
    assert tokenizer.convert_ids_to_tokens(stop) == FAMILIES[family][1]
    for name in ("one turn", "two turns", "prompt and completion"):
        (row,) = make_rows([CASES[name]], tokenizer, "chat", 4096)
        assert row.labels[-1] == stop
        assert row.labels[row.start :] == list(row.ids[row.start :])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["two turns", "system", "tool answer"])
def test_the_whole_row_is_what_the_template_writes(
    family: str, name: str, tiny_base_dir: Path
) -> None:
    tokenizer = tokenizer_of(family, tiny_base_dir)
    example = CASES[name]
    text = shown(example, tokenizer)
    # What a template cannot show is refused, as the golden files say.
    cannot = (name == "tool answer" and family != "qwen") or (name, family) == ("system", "gemma")
    assert text.startswith("refused: the chat template") == cannot
    if cannot:
        return
    turns = [dict(turn, content=turn["content"].strip()) for turn in example.messages[-1:]]
    whole = tokenizer.apply_chat_template(
        [*example.messages[:-1], *turns], tools=list(example.tools) or None, tokenize=False
    )
    assert text.replace("[[", "").replace("]]", "") == whole.rstrip("\n")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_answer_is_scored_where_that_is_asked(family: str, tiny_base_dir: Path) -> None:
    tokenizer = tokenizer_of(family, tiny_base_dir)
    names = ("one turn", "two turns", "tool answer")
    made = "".join(f"# {n}\n{shown(CASES[n], tokenizer, every_answer=True)}\n\n" for n in names)
    assert made == (HERE / "masks" / f"{family}-all.txt").read_text(encoding="utf-8")


def test_a_template_that_rewrites_earlier_answers_is_refused(tiny_base_dir: Path) -> None:
    """As some take a chain of thought out of every answer but the last."""
    tokenizer = tokenizer_of("smollm2", tiny_base_dir)
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
        "{{ m['content'] if loop.last or m['role'] == 'user' else '...' }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    text = shown(CASES["two turns"], tokenizer, every_answer=True)
    assert text.startswith("refused: the chat template writes earlier answers otherwise")
