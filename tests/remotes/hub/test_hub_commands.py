"""The commands with the Hub from end to end, read by PEFT alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from adapterhub.manifest import Version
from adapterhub.plugins import open_registry

_PEFT_ALONE = """
import sys, peft, torch
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
model = peft.PeftModel.from_pretrained(base, "org/sql", revision="v1").eval()
with torch.no_grad():
    torch.save(model(torch.arange(3, 20)[None]).logits, sys.argv[2])
"""


def test_push_and_pull_with_a_card_and_a_signature(
    adz: Any,
    hub: Any,
    hub_environment: dict[str, str],
    commit_adapter: Callable[..., Version],
    tiny_base_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commands from end to end, and PEFT on what huggingface_hub downloads."""
    key = tmp_path / "key.pem"
    command = ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key]
    subprocess.run(command, check=True, capture_output=True)
    version = commit_adapter("sql")
    result = adz("push", "sql", "--to", "hub://org", "--sign", key)
    assert result.code == 0, result.err
    card = huggingface_hub.ModelCard.load("org/sql")
    assert card.data.library_name == "peft"
    assert "adapterhub" in card.data.tags
    assert adz("show", "sql", "--card").out.rstrip() == str(card).rstrip()

    # A user of PEFT, who has no adapterhub.
    done = subprocess.run(
        [sys.executable, "-c", _PEFT_ALONE, tiny_base_dir, tmp_path / "logits.pt"],
        env={**os.environ, **hub_environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    theirs = torch.load(tmp_path / "logits.pt", weights_only=True)
    ours_base = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32)
    ours = peft.PeftModel.from_pretrained(ours_base, open_registry().path(version)).eval()
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        assert torch.equal(theirs, ours(ids).logits)

    monkeypatch.setenv("ADZ_HOME", str(tmp_path / "elsewhere"))
    result = adz("pull", "sql", "--from", "hub://org", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)[0]["digest"] == version.digest
    registry = open_registry()
    assert registry.resolve("sql@1").digest == version.digest
    assert adz("pull", "sqk", "--from", "hub://org").code == 2


def test_a_process_of_its_own_takes_the_environment(
    adz: Any,
    adz_process: Any,
    hub: Any,
    hub_environment: dict[str, str],
    commit_adapter: Callable[..., Version],
    tmp_path: Path,
) -> None:
    version = commit_adapter("sql")
    pushed = adz_process("push", "sql", "--to", "hub://org", env=hub_environment)
    assert pushed.code == 0, pushed.err
    assert "hf_" not in pushed.err
    elsewhere = {**hub_environment, "ADZ_HOME": str(tmp_path / "elsewhere")}
    pulled = adz_process("pull", "sql@1", "--from", "hub://org", "--json", env=elsewhere)
    assert pulled.code == 0, pulled.err
    assert json.loads(pulled.out)[0]["digest"] == version.digest
