"""The Modelfile: its template makes the prompts that the base's chat template makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig
from transformers import AutoTokenizer

from adapterhub import Hub
from adapterhub.errors import AdzError
from adapterhub.export.ollama import read_turns

from .conftest import LINEAR, Commit

LORA = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=LINEAR)
# As SmolLM2 has it: a system message of its own where none is given.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATS = [
    ["user"],
    ["system", "user"],
    ["user", "assistant", "user"],
    ["system", "user", "assistant", "user", "assistant", "user"],
]


@pytest.fixture
def tokenizer(tiny_base_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base_dir)


@pytest.mark.parametrize("roles", CHATS)
@pytest.mark.parametrize("template", ["own", SMOLLM2])
def test_the_parts_make_the_prompt(roles: list[str], template: str, tokenizer: Any) -> None:
    if template != "own":
        tokenizer.chat_template = template
    chat = [{"role": role, "content": f"{n} {role}"} for n, role in enumerate(roles)]
    expected = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert read_turns(tokenizer).render(chat) == expected


def test_the_template_in_ollamas_language(tokenizer: Any) -> None:
    tokenizer.chat_template = SMOLLM2
    assert read_turns(tokenizer).template() == (
        "{{ range $i, $_ := .Messages }}"
        '{{ if eq $i 0 }}{{ if ne .Role "system" }}<|im_start|>system\nYou are helpful<|im_end|>\n'
        "{{ end }}{{ end }}"
        '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n'
        "{{ end }}{{ end }}<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}",
        "{{ raise_exception('no') }}",
        "{% for m in messages %}{{ m['role'] }}{% endfor %}",
    ],
)
def test_a_template_that_looks_at_more_is_refused(template: str, tokenizer: Any) -> None:
    tokenizer.chat_template = template
    with pytest.raises(AdzError, match="cannot be said in Ollama's language"):
        read_turns(tokenizer)


@pytest.mark.parametrize("prompt_format", ["chat", "plain"])
def test_the_file(
    prompt_format: str, commit: Commit, tiny_base_dir: Path, tmp_path: Path, adz: Any
) -> None:
    commit("one", tiny_base_dir, LORA, prompt_format=prompt_format)
    arguments = ("export", "one", tmp_path / "one.gguf", "--gguf", "f16", "--ollama")
    done = adz(*arguments, "--no-compare")
    assert done.code == 0, done.err
    text = (tmp_path / "Modelfile").read_text()
    assert text.startswith('FROM ./one.gguf\nTEMPLATE """')
    assert ("{{ .Prompt }}" in text) == (prompt_format == "plain")
    assert 'PARAMETER stop "<|im_end|>"\n' in text
    (tmp_path / "one.gguf").unlink()
    again = adz(*arguments)
    assert again.code == 2
    assert "Modelfile exists already" in again.err
    assert not (tmp_path / "one.gguf").exists()


def test_an_adapter_over_a_model_of_ollamas(
    commit: Commit, tiny_base_dir: Path, tmp_path: Path
) -> None:
    commit("one", tiny_base_dir, LORA)
    result = Hub().export_lora_gguf("one", tmp_path / "one.gguf", ollama_base="smollm2:135m")
    assert result.files == (tmp_path / "Modelfile",)
    lines = (tmp_path / "Modelfile").read_text().splitlines()
    assert lines[:2] == ["FROM smollm2:135m", "ADAPTER ./one.gguf"]
