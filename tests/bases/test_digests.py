"""The identity of a base: what changes which digest, and what changes none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapterhub.bases.digests import (
    INDEX,
    compute_digests,
    describe_tensors,
    read_tensors,
    weight_files,
)
from adapterhub.bases.identity import explain_difference
from adapterhub.errors import AdzError

NAME = "model.layers.0.q_proj.weight"


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def other_values(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    save_file({name: array + 1 for name, array in tensors.items()}, directory / "model.safetensors")


def other_dtype(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    halves = {name: array.astype(np.float16) for name, array in tensors.items()}
    save_file(halves, directory / "model.safetensors")


CHANGES: list[tuple[Callable[[Path], object], list[str]]] = [
    (other_values, ["weights"]),
    (other_dtype, ["weights", "arch"]),
    (lambda d: edit_json(d / "config.json", rope_theta=1e6), ["arch"]),
    (lambda d: edit_json(d / "config.json", transformers_version="9", pad_token_id=7), []),
    (lambda d: (d / "tokenizer.json").write_text("{}"), ["tokenizer"]),
    (lambda d: edit_json(d / "tokenizer_config.json", add_bos_token=True), ["tokenizer"]),
    (lambda d: edit_json(d / "tokenizer_config.json", local_files_only=True), []),
    (lambda d: edit_json(d / "tokenizer_config.json", chat_template="x"), ["chat_template"]),
    (lambda d: (d / "chat_template.jinja").write_text("y"), ["chat_template"]),
    (lambda d: (d / "README.md").write_text("hello"), []),
]


@pytest.mark.parametrize(("change", "differing"), CHANGES)
def test_each_change_shows_in_its_digest(
    make_base: Callable[..., Path], change: Callable[[Path], object], differing: list[str]
) -> None:
    directory = make_base()
    before = compute_digests(directory)
    change(directory)
    assert explain_difference(before, compute_digests(directory)) == differing


def test_a_moved_copy_is_the_same_base(make_base: Callable[..., Path], tmp_path: Path) -> None:
    directory = make_base()
    copy = shutil.copytree(directory, tmp_path / "elsewhere")
    assert compute_digests(directory) == compute_digests(copy)


def test_a_template_in_a_file_is_the_one_in_the_configuration(
    make_base: Callable[..., Path],
) -> None:
    directory = make_base()
    before = compute_digests(directory).chat_template
    assert before is not None
    (directory / "tokenizer_config.json").write_text("{}")
    assert compute_digests(directory).chat_template is None
    (directory / "chat_template.jinja").write_text("{{ messages }}")
    assert compute_digests(directory).chat_template == before


def test_reads_the_shards_of_the_index_only(make_base: Callable[..., Path]) -> None:
    directory = make_base()
    (directory / "model.safetensors").rename(directory / "model-1.safetensors")
    save_file({"other": np.zeros(2, np.float32)}, directory / "consolidated.safetensors")
    (directory / INDEX).write_text(json.dumps({"weight_map": {NAME: "model-1.safetensors"}}))
    assert [file.name for file in weight_files(directory)] == ["model-1.safetensors"]
    assert describe_tensors(read_tensors(directory)) == (32, "F32")


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({NAME: "../../etc/passwd"}, "is malformed"),
        ({NAME: ".."}, "is malformed|lacks"),
        ({NAME: "gone.safetensors"}, "lacks gone.safetensors"),
        ({}, "is malformed"),
        ([], "is malformed"),
    ],
)
def test_refuses_an_index_that_leads_elsewhere(
    make_base: Callable[..., Path], weight_map: object, message: str
) -> None:
    directory = make_base()
    (directory / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(AdzError, match=message):
        weight_files(directory)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", None, "there are no safetensors in"),
        ("tokenizer.json", None, "there is no tokenizer in"),
        ("config.json", None, "there is no config.json in"),
        ("config.json", "{", "config.json is malformed"),
        ("config.json", "[]", "config.json is malformed: not a JSON object"),
        ("model.safetensors", "short", "model.safetensors is not a valid safetensors file"),
    ],
)
def test_says_what_a_base_lacks(
    make_base: Callable[..., Path], file: str, content: str | None, message: str
) -> None:
    directory = make_base()
    (directory / file).unlink()
    if content is not None:
        (directory / file).write_text(content)
    with pytest.raises(AdzError, match=message):
        compute_digests(directory)


def test_pickle_weights_are_named_as_such(make_base: Callable[..., Path]) -> None:
    directory = make_base()
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    with pytest.raises(AdzError, match="pickle weights can run code"):
        compute_digests(directory)
