"""A tokenizer as its files make it, computed by `tokenizers` alone.

transformers takes seconds to import, and most of what it does with a tokenizer's files is to
build the object of `tokenizers` that does the work. That object is kept, with the few facts beside
it. Templates of chats are rendered by transformers itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_IDS = ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id")
# What a class of its own could compute otherwise than transformers' common one does.
_COMMON = (
    "__call__", "__len__", "_decode", "_encode_plus", "added_tokens_decoder",
    "apply_chat_template", "convert_ids_to_tokens", "convert_tokens_to_ids", "decode",
    "get_chat_template",
)  # fmt: skip
_PROBES = (
    "", " ", "\n\n  A line\n", "Misspelled: mtuually\nCorrect:", "naïve 東京 🙂 1,234.5 don't",
    "  two  spaces , and a stop . ", "\tdef f(x):\n\t\treturn x\u00a0+ 1",
)  # fmt: skip


class KeptTokenizer:
    """What `adapterhub.data` and `adapterhub.train.rows` use of a tokenizer; ids are exactly those
    of the tokenizer of transformers that it was made from."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        from tokenizers import Tokenizer

        self._backend = Tokenizer.from_str(values["backend"])
        self._backend.encode_special_tokens = values["split_special_tokens"]
        self.special_tokens_map: dict[str, str] = values["special"]
        self.chat_template: str | None = values["chat_template"]
        self.all_special_ids: list[int] = values["all_special_ids"]
        self.bos_token_id: int | None = values["bos_token_id"]
        self.eos_token_id: int | None = values["eos_token_id"]
        self.unk_token_id: int | None = values["unk_token_id"]
        self.pad_token_id: int | None = values["pad_token_id"]

    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]:
        encoded = self._backend.encode(text, add_special_tokens=add_special_tokens)
        return {"input_ids": encoded.ids}

    def __len__(self) -> int:
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """Tokens that are not of the vocabulary that was learnt, by id."""
        added: Mapping[int, Any] = self._backend.get_added_tokens_decoder()
        return added

    def decode(self, ids: Sequence[int]) -> str:
        """The text, special tokens included."""
        return str(self._backend.decode(list(ids), skip_special_tokens=False))

    def convert_tokens_to_ids(self, token: str) -> int | None:
        """The token's id; the unknown token's where it is none."""
        found: int | None = self._backend.token_to_id(token)
        return self.unk_token_id if found is None else found

    def convert_ids_to_tokens(self, token: int) -> str | None:
        """The token of an id."""
        found: str | None = self._backend.id_to_token(token)
        return found

    def apply_chat_template(self, turns: Sequence[Mapping[str, Any]], **options: Any) -> Any:
        """The text of a chat, as transformers renders it."""
        from transformers import PreTrainedTokenizerBase

        own: Any = self
        return PreTrainedTokenizerBase.apply_chat_template(own, list(turns), **options)

    def get_chat_template(self, chat_template: str | None, tools: Any) -> str:
        """The template to use, which transformers asks for."""
        from transformers import PreTrainedTokenizerBase

        own: Any = self
        return str(PreTrainedTokenizerBase.get_chat_template(own, chat_template, tools))


def keep_tokenizer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any] | None:
    """What makes a `KeptTokenizer`, as JSON takes it; None where it would not be exact."""
    from transformers import TokenizersBackend

    if not isinstance(tokenizer, TokenizersBackend):
        return None
    own = type(tokenizer)
    if any(getattr(own, name) is not getattr(TokenizersBackend, name) for name in _COMMON):
        return None
    special = tokenizer.special_tokens_map
    if not isinstance(tokenizer.chat_template, str | None) or not all(
        isinstance(token, str) for token in special.values()
    ):
        return None
    # The object keeps what it was last asked for.
    tokenizer._tokenizer.no_truncation()
    tokenizer._tokenizer.no_padding()
    values = {
        "backend": tokenizer._tokenizer.to_str(),
        "split_special_tokens": tokenizer.split_special_tokens,
        "special": special,
        "chat_template": tokenizer.chat_template,
        "all_special_ids": tokenizer.all_special_ids,
        **{name: getattr(tokenizer, name) for name in _IDS},
    }
    return values if _agree(tokenizer, KeptTokenizer(values)) else None


def _agree(tokenizer: Any, kept: KeptTokenizer) -> bool:
    for probe in (*_PROBES, "".join(map(str, tokenizer.all_special_tokens))):
        for special in (True, False):
            ids = tokenizer(probe, add_special_tokens=special)["input_ids"]
            if ids != kept(probe, add_special_tokens=special)["input_ids"]:
                return False
            if tokenizer.decode(ids) != kept.decode(ids):
                return False
    return len(tokenizer) == len(kept)
