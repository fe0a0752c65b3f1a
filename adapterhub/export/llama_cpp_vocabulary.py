"""The tokenizer as llama.cpp reads it: byte-level BPE, by tokenizer.json."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.errors import AdzError

if TYPE_CHECKING:
    from gguf import GGUFWriter

_HINT = "adz export REF --merged DIR, then llama.cpp's convert_hf_to_gguf.py"
# How a text is cut before BPE: the steps of tokenizer.json -> llama.cpp's name for them.
# A pattern is a regular expression of the tokenizer; llama.cpp has it built in.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_PRE_TOKENIZERS: Mapping[tuple[str, ...], str] = {
    ("bytes with pattern",): "gpt-2",
    ("single digits", "bytes with pattern"): "smollm",
    (_LLAMA3, "bytes"): "llama-bpe",
    (_QWEN2, "bytes"): "qwen2",
}
_SPECIAL = re.compile(r"<\|.*\|>|<pad>|<mask>|<unused.*>")


def write_vocabulary(writer: GGUFWriter, directory: Path, size: int) -> None:
    """Tokens, merges, special tokens and chat template of the base in `directory`.

    size: rows of the embedding. Raises AdzError for a tokenizer of another kind.
    """
    from gguf import SpecialVocab

    try:
        tokenizer = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdzError("the base has no tokenizer.json", _HINT) from None
    model = tokenizer["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise AdzError("the tokenizer is no byte-level BPE, which is all that is written", _HINT)
    tokens, types = _tokens(tokenizer, size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    # llama.cpp wants a list, and GGUF has no empty ones: this pair never meets.
    writer.add_token_merges(merges or ["[PAD] [PAD]"])
    SpecialVocab(directory, n_vocab=size).add_to_gguf(writer, quiet=True)


def _tokens(tokenizer: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    from gguf import TokenType

    tokens = [f"[PAD{number}]" for number in range(size)]
    types = [int(TokenType.UNUSED)] * size
    for token, number in tokenizer["model"]["vocab"].items():
        tokens[number], types[number] = token, int(TokenType.NORMAL)
    for added in tokenizer.get("added_tokens", []):
        text, number = added["content"], added["id"]
        special = added["special"] or _SPECIAL.fullmatch(text)
        tokens[number] = text
        types[number] = int(TokenType.CONTROL if special else TokenType.USER_DEFINED)
    return tokens, types


def _pre_tokenizer(tokenizer: Mapping[str, Any]) -> str:
    """By what the tokenizer does, not by who made it: the adapter learnt these tokens."""
    if tokenizer.get("normalizer") not in (None, {"type": "NFC"}):
        raise AdzError(f"the tokenizer normalises by {tokenizer['normalizer']['type']}", _HINT)
    steps = tuple(map(_step, _sequence(tokenizer.get("pre_tokenizer") or {})))
    if steps not in _PRE_TOKENIZERS:
        raise AdzError("llama.cpp has no known name for the way the tokenizer cuts texts", _HINT)
    return _PRE_TOKENIZERS[steps]


def _sequence(pre_tokenizer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if pre_tokenizer.get("type") == "Sequence":
        return list(pre_tokenizer["pretokenizers"])
    return [pre_tokenizer]


def _step(step: Mapping[str, Any]) -> str:
    kind = step.get("type")
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return "bytes with pattern" if step.get("use_regex", True) else "bytes"
    if kind == "Digits" and step.get("individual_digits"):
        return "single digits"
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        return str(step.get("pattern", {}).get("Regex", "?"))
    return "?"
