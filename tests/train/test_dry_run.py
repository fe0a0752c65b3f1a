"""A dry run by the base's outline: as exact as what the libraries say, without torch."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from adapterhub.bases.add import remove_base
from adapterhub.bases.outline import KeptTokenizer, outline_of, read_outline
from adapterhub.bases.outline.tokenizer import keep_tokenizer
from adapterhub.errors import AdzError
from adapterhub.protocols import Registry
from adapterhub.train import dry_run
from adapterhub.train.dry_run import preview_run
from adapterhub.train.recipe import TrainRecipe

HEAVY = ("peft", "torch", "transformers")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def outline_file(home: Path) -> Path:
    return home / "bases" / "outlines" / "tiny.json"


@pytest.fixture
def preview(registry: Registry, data_file: Path) -> Callable[..., dict[str, Any]]:
    def run(train: Path = data_file, **changes: Any) -> dict[str, Any]:
        recipe = TrainRecipe(data={"train": train, "holdout": 0.2}, **changes)
        return preview_run(recipe, registry).values

    return run


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on nothing may be asked of transformers, torch or PEFT."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("this needs torch")

    def begin() -> None:
        for name in ("_attached", "load_tokenizer"):
            monkeypatch.setattr(dry_run, name, refuse)

    return begin


def test_the_outline_says_what_the_libraries_say_and_needs_no_torch(
    preview: Any, light: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats = tmp_path / "chats.jsonl"
    turns = [{"role": "user", "content": "Hi 🙂"}, {"role": "assistant", "content": " Yes?\n"}]
    chats.write_text(json.dumps({"messages": turns}) + "\n" + json.dumps({"messages": turns}))
    cases: list[dict[str, Any]] = [
        {},
        {"method": {"name": "dora", "targets": ["q_proj", "v_proj"]}},
        {"method": {"name": "adalora", "init_r": 5}},
        {"train": chats},
        {"train": chats, "objective": "sft", "method": {"name": "lora", "r": 4}},
    ]

    def answers() -> list[dict[str, Any]]:
        return [preview(**case) for case in cases]

    kept = answers()
    with monkeypatch.context() as patch:
        patch.setattr(dry_run, "_foretold", lambda plan, outline: None)
        patch.setattr(dry_run, "outline_of", lambda base: replace(outline_of(base), tokenizer=None))
        asked = answers()
    assert kept == asked
    light()
    assert answers() == asked
    assert asked[0]["adapter"]["targets"]["q_proj"] == 2
    assert asked[3]["recipe"]["data"]["prompt_format"] == "chat"


def test_neither_torch_nor_transformers_is_imported(
    preview: Any, data_file: Path, home: Path
) -> None:
    preview()
    code = (
        "import sys; from adapterhub.cli import main\n"
        "code = main()\n"
        f"sys.exit(code or [name for name in {HEAVY} if name in sys.modules] or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "train", "--data", data_file, "--dry-run", "--json"],
        text=True,
        capture_output=True,
        env={**os.environ, "ADZ_HOME": str(home)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["adapter"]["parameters"] == preview()["adapter"]["parameters"]


@pytest.mark.parametrize("given", [{"targets": ["q_prjo"]}, {"targets": "("}], ids=str)
def test_what_is_refused_is_refused_in_the_same_words(
    preview: Any, given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = []
    for _ in range(2):
        with pytest.raises(AdzError) as refused:
            preview(method={"name": "lora", **given})
        errors.append(str(refused.value))
        # The second time PEFT itself is asked.
        monkeypatch.setattr(dry_run, "_foretold", lambda plan, outline: None)
    assert errors[0] == errors[1]


def test_a_method_without_a_forecast_is_asked_itself(preview: Any) -> None:
    first = preview(method="ia3")
    assert preview(method="ia3") == first


def test_an_outline_is_of_no_use_once_something_changed(
    preview: Any, registry: Registry, outline_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = registry.base("tiny")
    # Made when the base was added.
    assert read_outline(base) is not None
    digests = base.digests.model_copy(update={"tokenizer": "sha256:" + 64 * "0"})
    assert read_outline(base.model_copy(update={"digests": digests})) is None
    with monkeypatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "7")
        assert read_outline(base) is None
    with monkeypatch.context() as patch:
        patch.setattr("importlib.metadata.version", lambda name: "0")
        assert read_outline(base) is None
    outline_file.write_text(outline_file.read_text()[:-20])
    assert read_outline(base) is None
    preview()
    assert read_outline(base) is not None
    remove_base(registry, "tiny")
    assert not outline_file.exists()


def test_a_full_disk_leaves_nothing_of_an_outline(
    preview: Any, outline_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    outline_file.unlink()
    monkeypatch.setattr(Path, "replace", full)
    assert preview()["adapter"]["targets"]["q_proj"] == 2
    assert list(outline_file.parent.iterdir()) == []


def test_a_folder_that_takes_no_outline_costs_no_answer(preview: Any, outline_file: Path) -> None:
    shutil.rmtree(outline_file.parent)
    outline_file.parent.write_text("in the way")
    assert preview() == preview()


# A tokenizer that opens and closes every text, splits at blanks and knows few words.
def _of_words() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    words = {w: i for i, w in enumerate(("<unk>", "<s>", "</s>", "▁a", "▁line", "▁two", "▁the"))}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.mark.parametrize("kind", ["bytes", "words"])
def test_a_kept_tokenizer_is_the_one_that_it_was_made_from(kind: str, tiny_base_dir: Path) -> None:
    whole = AutoTokenizer.from_pretrained(tiny_base_dir) if kind == "bytes" else _of_words()
    whole.chat_template = CHAT + "{{ eos_token }}"
    kept = KeptTokenizer(json.loads(json.dumps(keep_tokenizer(whole))))
    for text in ("a line", "", " two  the a\n", "東京", "</s> a <|im_end|>x", "two<s>"):
        for special in (True, False):
            ids = whole(text, add_special_tokens=special)["input_ids"]
            assert kept(text, add_special_tokens=special)["input_ids"] == ids
            assert kept.decode(ids) == whole.decode(ids)
    for name in ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id",
                 "all_special_ids", "chat_template"):  # fmt: skip
        assert getattr(kept, name) == getattr(whole, name)
    assert len(kept) == len(whole)
    assert list(kept.added_tokens_decoder) == list(whole.added_tokens_decoder)
    for token in ("<s>", "▁a", "nothing", "<|im_end|>"):
        assert kept.convert_tokens_to_ids(token) == whole.convert_tokens_to_ids(token)
    assert kept.convert_ids_to_tokens(3) == whole.convert_ids_to_tokens(3)
    turns = [{"role": "user", "content": "a line"}]
    for answer in (True, False):
        options = {"tools": None, "tokenize": False, "add_generation_prompt": answer}
        shown = whole.apply_chat_template(turns, **options)
        assert kept.apply_chat_template(turns, **options) == shown
    with pytest.raises(ValueError, match="empty conversation"):
        kept.apply_chat_template([], tools=None, tokenize=False)


def test_a_tokenizer_that_computes_otherwise_is_not_kept() -> None:
    class Own(PreTrainedTokenizerFast):
        def decode(self, *arguments: Any, **options: Any) -> str:
            return super().decode(*arguments, **options).upper()

    words = _of_words()
    assert keep_tokenizer(words) is not None
    own = Own(tokenizer_object=words.backend_tokenizer, eos_token="</s>")
    assert keep_tokenizer(own) is None
