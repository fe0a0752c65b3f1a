"""Every format: what it reads, what it writes reads as the same, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from trl.data_utils import extract_prompt

from adapterhub import specs
from adapterhub.data import read_examples
from adapterhub.errors import AdzError
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Example


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
ASKED = (turn("system", "Be kind."), turn("user", "Hi"), turn("assistant", "Yes?"))
CHAT = (*ASKED, turn("user", "Bye"), turn("assistant", "See you"))
TOOL_CHAT = (
    turn("user", "Warm in Rome?"),
    turn("assistant", "", tool_calls=[CALL]),
    turn("tool", "31 degrees"),
    turn("assistant", "Yes."),
)

# Format -> rows as they are met, and what each is read as.
ROWS: dict[str, list[tuple[dict[str, Any], Example]]] = {
    "messages": [
        ({"messages": list(CHAT)}, Example(messages=CHAT)),
        (
            {
                "messages": [
                    TOOL_CHAT[0],
                    # As OpenAI writes it: no content, and the arguments as text.
                    {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [
                            {
                                "type": "function",
                                "function": {"name": "weather", "arguments": '{"city": "Rome"}'},
                            }
                        ],
                    },
                    *TOOL_CHAT[2:],
                ],
                "tools": [WEATHER],
            },
            Example(messages=TOOL_CHAT, tools=(WEATHER,)),
        ),
    ],
    "sharegpt": [
        (
            {
                "system": "Be kind.",
                "conversations": [
                    {"from": "human", "value": "Hi"},
                    {"from": "gpt", "value": "Yes?"},
                    {"from": "human", "value": "Bye"},
                    {"from": "gpt", "value": "See you"},
                ],
            },
            Example(messages=CHAT),
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "Warm in Rome?"},
                    {
                        "from": "function_call",
                        "value": '{"name": "weather", "arguments": {"city": "Rome"}}',
                    },
                    {"from": "observation", "value": "31 degrees"},
                    {"from": "gpt", "value": "Yes."},
                ],
                "tools": json.dumps([WEATHER]),
            },
            Example(messages=TOOL_CHAT, tools=(WEATHER,)),
        ),
    ],
    "alpaca": [
        (
            {"instruction": "Translate", "input": "chat", "output": "cat"},
            Example(messages=(turn("user", "Translate\n\nchat"), turn("assistant", "cat"))),
        ),
        (
            {
                "instruction": "Bye",
                "input": "",
                "output": "See you",
                "system": "Be kind.",
                "history": [["Hi", "Yes?"]],
            },
            Example(messages=CHAT),
        ),
    ],
    "prompt_completion": [
        (
            {"prompt": "Q: a\nA:", "completion": " b\u2028c"},
            Example(prompt="Q: a\nA:", completion=" b\u2028c"),
        ),
        ({"prompt": list(CHAT[:-1]), "completion": [CHAT[-1]]}, Example(messages=CHAT)),
    ],
    "text": [({"text": "All of it."}, Example(completion="All of it."))],
    "preference": [
        (
            {"prompt": "Sky?", "chosen": " blue", "rejected": " green"},
            Example(prompt="Sky?", completion=" blue", rejected=" green"),
        ),
        (
            {
                "chosen": [*CHAT[:-1], turn("assistant", "See you")],
                "rejected": [*CHAT[:-1], turn("assistant", "Go away")],
            },
            Example(messages=CHAT, rejected="Go away"),
        ),
        (
            {
                "prompt": list(CHAT[:-1]),
                "chosen": [turn("assistant", "See you")],
                "rejected": [turn("assistant", "Go away")],
            },
            Example(messages=CHAT, rejected="Go away"),
        ),
    ],
    "unpaired_preference": [
        (
            {"prompt": "Sky?", "completion": " green", "label": False},
            Example(prompt="Sky?", completion=" green", desirable=False),
        ),
        (
            {"prompt": list(CHAT[:-1]), "completion": [CHAT[-1]], "label": True},
            Example(messages=CHAT, desirable=True),
        ),
    ],
    "prompt": [
        ({"prompt": "Sky?"}, Example(prompt="Sky?")),
        ({"prompt": list(CHAT[:-1])}, Example(messages=(*CHAT[:-1], turn("assistant", "")))),
    ],
}
KINDS = {
    "preference": "preference", "unpaired_preference": "unpaired_preference", "prompt": "prompt"
}  # fmt: skip


def write_lines(path: Path, rows: list[Any]) -> Path:
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def test_every_format_of_ours_is_here() -> None:
    assert set(ROWS) == set(load_plugins().components(specs.Format))


@pytest.mark.parametrize("name", ROWS)
def test_each_row_is_recognised_and_read(name: str, tmp_path: Path) -> None:
    for row, example in ROWS[name]:
        data = read_examples(write_lines(tmp_path / "train.jsonl", [row, row]))
        assert data.format == name
        assert data.kind == KINDS.get(name, "supervised")
        assert list(data.examples) == [example, example]


@pytest.mark.parametrize("name", ROWS)
def test_what_is_written_reads_as_the_same(name: str, tmp_path: Path) -> None:
    plugins = load_plugins()
    layout = plugins.load_implementation(plugins.get(specs.Format, name))()
    for _, example in ROWS[name]:
        path = write_lines(tmp_path / "again.jsonl", [layout.row(example)])
        assert list(read_examples(path).examples) == [example]
        assert read_examples(path).format == name


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("messages", {"messages": [turn("robot", "a")]}, "message 1 has the role 'robot'"),
        ("messages", {"messages": [turn("user", "a", weight=1)]}, "the unknown key 'weight'"),
        (
            "messages",
            {"messages": [turn("user", "a"), turn("assistant", "", tool_calls=[{}])]},
            "message 2: a tool call names no function",
        ),
        (
            "messages",
            {"messages": list(CHAT), "tools": "{"},
            "the column 'tools' is not JSON",
        ),
        ("sharegpt", {"conversations": [{"from": "me", "value": "a"}]}, "turn 1 is from 'me'"),
        ("sharegpt", {"conversations": [{"from": "human"}]}, "'value' is not there"),
        (
            "sharegpt",
            {"conversations": [{"from": "function_call", "value": "f()"}]},
            "turn 1: a function_call is not JSON",
        ),
        ("alpaca", {"instruction": "a", "output": None}, "the column 'output' is empty"),
        ("alpaca", {"instruction": "a", "output": "b", "history": [["a"]]}, "'history' is not"),
        ("prompt_completion", {"prompt": "a", "completion": ""}, "'completion' is empty"),
        ("text", {"text": 3}, "the column 'text' holds int, not text"),
        ("preference", {"prompt": "a", "chosen": "b", "rejected": "b"}, "are the same"),
        ("preference", {"chosen": "b", "rejected": "c"}, "have no beginning in common"),
        ("preference", {"chosen": "a: b", "rejected": "a: b c"}, "differ only in that one goes on"),
        (
            "preference",
            {"chosen": list(CHAT), "rejected": [*ASKED, turn("assistant", "no")]},
            "chosen is 2 messages after the prompt, not one",
        ),
        (
            "preference",
            {
                "prompt": "Other",
                "chosen": list(CHAT),
                "rejected": [*CHAT[:-1], turn("assistant", "no")],
            },
            "'prompt' is not what chosen and rejected begin with",
        ),
        (
            "unpaired_preference",
            {"prompt": "a", "completion": "b", "label": 1},
            "the column 'label' holds 1, not true or false",
        ),
        ("prompt", {"prompt": list(CHAT)}, "the last message is not the user's"),
    ],
)
def test_a_malformed_row_is_named_with_its_line(
    name: str, bad: dict[str, Any], message: str, tmp_path: Path
) -> None:
    good = ROWS[name][0][0]
    path = write_lines(tmp_path / "bad.jsonl", [good, good, bad])
    with pytest.raises(AdzError) as caught:
        read_examples(path)
    assert f"{path} line 3: " in caught.value.message
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [("Sky? It is blue.", "Sky? It is green."), ("Q\nA:\nyes", "Q\nA:\nno"), ("a (b", "a )b")],
)
def test_an_implicit_prompt_is_trls(chosen: str, rejected: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / "p.jsonl", [{"chosen": chosen, "rejected": rejected}])
    (example,) = read_examples(path).examples
    assert {
        "prompt": example.prompt, "chosen": example.completion, "rejected": example.rejected
    } == extract_prompt({"chosen": chosen, "rejected": rejected})  # fmt: skip


def test_an_implicit_prompt_cuts_no_word(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "p.jsonl", [{"chosen": "Sky? blue", "rejected": "Sky? black"}])
    (example,) = read_examples(path).examples
    assert example == Example(prompt="Sky?", completion=" blue", rejected=" black")


def test_an_implicit_prompt_of_chats_is_trls(tmp_path: Path) -> None:
    row, example = ROWS["preference"][1]
    theirs = extract_prompt(row)
    assert tuple(theirs["prompt"]) == example.messages[:-1]
    assert theirs["chosen"] == [example.messages[-1]]
    assert theirs["rejected"] == [turn("assistant", example.rejected or "")]
