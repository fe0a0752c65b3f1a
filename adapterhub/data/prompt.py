"""What the model is shown of an example: one rendering for training, evaluation and serving.

`plain` joins prompt and completion as they are. `chat` uses the tokenizer's chat template.
The prompt and the completion are tokenised apart, because at inference the prompt stands alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from adapterhub.errors import AdzError
from adapterhub.protocols import Example

PromptFormat = Literal["plain", "chat"]


def choose_format(examples: Sequence[Example], tokenizer: Any) -> PromptFormat:
    """What `auto` means: chat for chats where the tokenizer has a template, else plain."""
    chats = bool(examples) and bool(examples[0].messages)
    return "chat" if chats and tokenizer.chat_template else "plain"


def render(
    example: Example,
    tokenizer: Any,
    prompt_format: PromptFormat,
    chat_template: str | None = None,
) -> tuple[str, str]:
    """The text before and the text of the answer, without the stop token.

    chat_template: used instead of the tokenizer's, in Jinja's immutable sandbox as that one.

    In plain, a chat's messages stand one below the other, the answer on the next line.
    In chat, a prompt and completion are one turn. Raises AdzError when the format cannot
    show the example.
    """
    if prompt_format == "plain":
        if not example.messages:
            return example.prompt, example.completion
        lines = [message["content"] for message in example.messages]
        return "".join(line + "\n" for line in lines[:-1]), lines[-1]
    messages = as_messages(example)
    prompt = _template(
        tokenizer, messages[:-1], answer=True, instead=chat_template, tools=example.tools
    )
    return prompt, messages[-1]["content"].strip()


def as_messages(example: Example) -> tuple[Mapping[str, str], ...]:
    """The example as a chat: its own messages, or prompt and completion as one turn."""
    if example.messages:
        return example.messages
    if not example.prompt:
        raise AdzError(
            "plain text has no question that a chat could begin with", "use prompt_format plain"
        )
    return (
        {"role": "user", "content": example.prompt},
        {"role": "assistant", "content": example.completion.strip()},
    )


def stop_token(tokenizer: Any, prompt_format: PromptFormat) -> int:
    """The id of the token that ends an answer: what the chat template writes after one, or
    the tokenizer's end of text."""
    if prompt_format == "chat":
        turn = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "answer"}]
        _, _, tail = _template(tokenizer, turn, answer=False).rpartition("answer")
        ids = tokenizer(tail.strip(), add_special_tokens=False)["input_ids"]
        if ids and ids[0] in tokenizer.added_tokens_decoder:
            return int(ids[0])
    if tokenizer.eos_token_id is None:
        raise AdzError("the base's tokenizer has no end-of-text token", "choose another base")
    return int(tokenizer.eos_token_id)


def encode_prompt(text: str, tokenizer: Any, prompt_format: PromptFormat) -> list[int]:
    """Token ids of a rendered prompt. A chat template writes its own special tokens."""
    ids = tokenizer(text, add_special_tokens=prompt_format == "plain")["input_ids"]
    # A tokenizer that closes every text would end the answer before it begins.
    if (
        prompt_format == "plain"
        and ids
        and ids[-1] == tokenizer.eos_token_id
        and (ids != [tokenizer.bos_token_id])
    ):
        ids = ids[:-1]
    return list(ids)


def encode(
    example: Example, tokenizer: Any, prompt_format: PromptFormat, stop: int
) -> tuple[list[int], list[int]]:
    """Token ids of the prompt and of the completion, which ends with `stop`.

    In chat the completion is what the template writes of an answer, tool calls and all, up to
    the stop token.
    """
    prompt, completion = render(example, tokenizer, prompt_format)
    if prompt_format == "chat":
        completion = _written(example, tokenizer, prompt, stop)
    ids = tokenizer(completion, add_special_tokens=False)["input_ids"]
    return encode_prompt(prompt, tokenizer, prompt_format), [*ids, stop]


def encode_turns(
    example: Example, tokenizer: Any, stop: int
) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a chat, and (begin, end) of every answer in it, each with its stop token.

    An answer is tokenised apart from what stands before it, as it is when the model gives it.
    Raises AdzError where the chat template writes an answer otherwise once others follow.
    """
    turns = tuple(
        {**turn, "content": turn["content"].strip()} if turn["role"] == "assistant" else turn
        for turn in as_messages(example)
    )
    ids: list[int] = []
    answers = []
    written = ""
    for place, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        part = replace(example, messages=turns[: place + 1])
        prompt, _ = render(part, tokenizer, "chat")
        if not prompt.startswith(written):
            raise AdzError(
                "the chat template writes earlier answers otherwise than the last one",
                "only that can be learnt: data.answers=last",
            )
        completion = _written(part, tokenizer, prompt, stop)
        ids += encode_prompt(prompt[len(written) :], tokenizer, "chat")
        begin = len(ids)
        ids += [*tokenizer(completion, add_special_tokens=False)["input_ids"], stop]
        answers.append((begin, len(ids)))
        written = prompt + completion + tokenizer.convert_ids_to_tokens(stop)
    return ids, answers


def encode_rejected(
    example: Example, tokenizer: Any, prompt_format: PromptFormat, stop: int
) -> list[int]:
    """Token ids of the worse answer of a preference pair, which ends with `stop` too."""
    worse = example.rejected or ""
    if example.messages:
        last = {"role": "assistant", "content": worse}
        example = replace(example, messages=(*example.messages[:-1], last))
    else:
        example = replace(example, completion=worse)
    return encode(example, tokenizer, prompt_format, stop)[1]


def render_turns(
    turns: Sequence[Mapping[str, Any]],
    tokenizer: Any,
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    chat_template: str | None = None,
) -> str:
    """The text of a chat up to where the assistant answers, with the tools that it may call,
    through `chat_template` or else the tokenizer's.

    Raises AdzError when the template cannot show it.
    """
    if tools and "tools" not in str(chat_template or tokenizer.chat_template):
        raise AdzError("the chat template shows no tools", "ask without tools")
    return _template(tokenizer, turns, answer=True, instead=chat_template, tools=tools)


def _check_tools(
    template: str, turns: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> None:
    """A template that knows no tools leaves them out in silence, and calls become empty."""
    calls = any(turn.get("tool_calls") for turn in turns)
    for word, there in (("tools", bool(tools)), ("tool_calls", calls)):
        if there and word not in template:
            raise AdzError(f"the chat template shows no {word}", "leave such rows out")


def _written(example: Example, tokenizer: Any, prompt: str, stop: int) -> str:
    *before, answer = as_messages(example)
    content = answer["content"].strip()
    whole = _template(
        tokenizer, [*before, {**answer, "content": content}], answer=False, tools=example.tools
    )
    if whole.startswith(prompt):
        written, found, _ = whole[len(prompt) :].rpartition(tokenizer.convert_ids_to_tokens(stop))
        if found:
            return written
    if answer.get("tool_calls"):
        raise AdzError("the chat template writes a tool call in a way that is not understood")
    return content


def _template(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    *,
    answer: bool,
    instead: str | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    if not (instead or tokenizer.chat_template):
        raise AdzError("the base's tokenizer has no chat template", "use prompt_format plain")
    turns = [dict(message) for message in messages]
    _check_tools(str(instead or tokenizer.chat_template), turns, tools)
    try:
        text: str = tokenizer.apply_chat_template(
            turns,
            tools=list(tools) or None,
            tokenize=False,
            add_generation_prompt=answer,
            chat_template=instead,
        )
    # Templates are foreign code: they refuse roles and orders by raising whatever they like.
    except Exception as error:
        roles = ", ".join(turn["role"] for turn in turns)
        raise AdzError(f"the chat template refuses the roles {roles}: {error}") from error
    return text
