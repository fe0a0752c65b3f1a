"""`adz tag --split`, and what the other commands say about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from adapterhub.manifest import BaseDigests, BaseLink, Manifest
from adapterhub.plugins import open_registry


@pytest.fixture
def stored(home: Path, tmp_path: Path) -> Any:
    """Three versions of one base; `prod` is the first."""
    import numpy as np
    from safetensors.numpy import save_file

    payload = tmp_path / "payload"
    payload.mkdir()
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    ones = np.ones((2, 8), np.float32)
    tensors = {f"{module}.lora_A.weight": ones, f"{module}.lora_B.weight": ones.T.copy()}
    save_file(tensors, payload / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (payload / "adapter_config.json").write_text(json.dumps(config))
    part = "sha256:" + "0" * 64
    digests = BaseDigests(weights=part, arch=part, tokenizer=part)
    manifest = Manifest(
        name="sql",
        method="lora",
        made_by="import",
        base=BaseLink(status="asserted", name="llama", digests=digests),
        adapter={"rank": 2},
    )
    registry = open_registry()
    for _ in range(3):
        registry.commit(manifest, payload)
    registry.tag("sql@1", "prod")
    return registry


def test_it_is_set_shown_and_ended(stored: Any, adz: Any) -> None:
    assert adz("tag", "--split", "sql@prod=1:90,3:10").out == "sql@prod -> 1:90,3:10\n"
    assert stored.splits() == {"sql@prod": {1: 90, 3: 10}}
    assert "prod@1:90,3:10" in adz("ls").out
    every = [line.split()[:2] for line in adz("ls", "--all-versions").out.splitlines()[1:]]
    assert every == [["sql@1", "prod:90"], ["sql@2", "lora"], ["sql@3", "prod:10"]]
    assert adz("show", "sql@3").out.startswith("sql@3  (prod 1:90,3:10)\n")
    assert adz("show", "sql@prod").out.startswith("sql@1  (prod 1:90,3:10)\n")
    assert json.loads(adz("show", "sql@3", "--json").out)["splits"] == {"prod": {"1": 90, "3": 10}}
    assert adz("lineage", "sql@prod").err == (
        "sql@prod is split, 1:90,3:10: its heaviest version\n"
    )
    assert adz("tag", "--rollback", "sql@prod").out == "sql@prod -> sql@1\n"
    assert adz("tag", "--split", "sql@prod=1:1,2:3").out == "sql@prod -> 1:1,2:3\n"
    assert adz("tag", "sql@2", "prod").out == "sql@prod -> sql@2\n"
    told = [line.split(maxsplit=3)[3] for line in adz("log", "sql").out.splitlines()[5:]]
    assert [" ".join(line.split()) for line in told] == [
        "split sql@prod: 1 -> 1:90,3:10",
        "rollback sql@prod: 1:90,3:10 -> 1",
        "split sql@prod: 1 -> 1:1,2:3",
        "tag sql@prod: 1:1,2:3 -> 2",
    ]
    assert adz("ls", "--json").err == ""


def test_a_push_sets_the_heaviest_and_says_so(stored: Any, adz: Any, tmp_path: Path) -> None:
    adz("tag", "--split", "sql@prod=1:10,3:90")
    done = adz("push", "sql@prod", "--to", str(tmp_path / "remote"))
    assert done.code == 0
    line = "warning: sql@prod is split here; there it becomes sql@3, its heaviest version"
    assert line in done.err.splitlines()
    adz("tag", "sql@1", "prod")
    assert adz("pull", "sql@prod", "--from", str(tmp_path / "remote")).code == 0
    assert stored.resolve("sql@prod").number == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--split", "sql@prod"), "'' is not a version and its weight (write versions and weig"),
        (("--split", "sql@prod=1"), "'1' is not a version and its weight"),
        (("--split", "sql@prod=1:x"), "'1:x' is not a version and its weight"),
        (("--split", "sql@prod=1:90,"), "'' is not a version and its weight"),
        (("--split", "sql@prod=1:90,1:10"), "version 1 has two weights in '1:90,1:10'"),
        (("--split", "sql@prod=1:100"), "sql@prod cannot be split over 1 versions"),
        (("--split", "sql@prod=1:0,2:100"), "the weight of sql@1 is 0"),
        (("--split", "sql@prod=1:90,7:10"), "sql has no version 7"),
        (("--split", "sql=1:90,2:10"), "'sql' is not one alias"),
        (("--split", "sql@latest=1:90,2:10"), "the alias 'latest' is reserved"),
        (("--split", "sql@prod=1:90,2:10", "beta"), "'sql@prod' is not one alias"),
        (("--split", "--rollback", "sql@prod"), "--split and --rollback exclude each other"),
    ],
)
def test_a_mistake_is_one_clear_line(
    stored: Any, adz: Any, arguments: tuple[str, ...], message: str
) -> None:
    before = stored.revision()
    result = adz("tag", *arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.startswith(f"adz: {message}")
    assert result.err.count("\n") == 1
    assert stored.revision() == before
