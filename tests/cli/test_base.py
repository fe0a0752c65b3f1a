"""`adz base`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Adz = Callable[..., Any]


@pytest.mark.parametrize("copy", [False, True])
def test_add_ls_show_rm(adz: Adz, tiny_base_dir: Path, copy: bool) -> None:
    options = ["--copy"] if copy else []
    added = adz("base", "add", "tiny", tiny_base_dir, "--json", *options)
    assert added.code == 0, added.err
    record = json.loads(added.out)
    assert record["name"] == "tiny"
    assert record["architecture"] == "LlamaForCausalLM"
    assert (record["path"] == str(tiny_base_dir)) is not copy
    assert json.loads(adz("base", "ls", "--json").out) == [record]
    assert "LlamaForCausalLM" in adz("base", "ls").out
    assert json.loads(adz("base", "show", "tiny", "--json").out) == record
    assert record["digests"]["weights"] in adz("base", "show", "tiny").out
    assert adz("base", "show", "tiny", "--path").out.strip() == record["path"]
    removed = adz("base", "rm", "tiny", "--json")
    assert json.loads(removed.out) == {"removed": "tiny"}
    assert tiny_base_dir.exists()
    assert json.loads(adz("base", "ls", "--json").out) == []


def test_parameters_are_those_of_the_model(adz: Adz, tiny_base_dir: Path) -> None:
    from transformers import AutoModelForCausalLM

    record = json.loads(adz("base", "add", "tiny", tiny_base_dir, "--json").out)
    model = AutoModelForCausalLM.from_pretrained(tiny_base_dir)
    assert record["parameters"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "tony"], 2, "unknown base 'tony' (did you mean tiny?)"),
        (["rm", "tony"], 2, "unknown base 'tony' (did you mean tiny?)"),
        (["add", "../x", "y"], 2, "'../x' is not a valid name"),
        (["add", "Tiny", "y"], 2, "'Tiny' is not a valid name"),
        (["add", "other", "./gone"], 2, "there is no "),
        (["add", "other", "org/name"], 1, "HF_HUB_OFFLINE is set"),
        (["add", "tiny", "org/name"], 2, "the name tiny is taken by the base from "),
    ],
)
def test_a_mistake_is_one_line(
    adz: Adz, tiny_base_dir: Path, arguments: list[str], code: int, message: str
) -> None:
    adz("base", "add", "tiny", tiny_base_dir)
    result = adz("base", *arguments)
    lines = [line for line in result.err.splitlines() if not line.startswith("fetching ")]
    assert result.code == code
    assert result.out == ""
    assert len(lines) == 1
    assert lines[0].startswith("adz: ")
    assert message in lines[0]
