"""The Python API: the same verbs, the same results as the commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

import adapterhub
from adapterhub import AdzError, Hub

ROOT = Path(__file__).parent.parent
FEW = ["method.r=4", "training.max_steps=3", "training.batch_size=4", "training.max_length=128"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "letters.jsonl"
    rows = [{"prompt": f"{i} is ", "completion": chr(97 + i % 26)} for i in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def hub(tmp_path: Path, tiny_base_dir: Path) -> Hub:
    hub = Hub(tmp_path / "hub-home")
    hub.add_base("tiny", str(tiny_base_dir))
    return hub


def test_a_hub_keeps_to_its_own_home(hub: Hub, home: Path, adz: Any) -> None:
    assert os.environ["ADZ_HOME"] == str(home) != str(hub.home)
    assert [base.name for base in hub.bases()] == ["tiny"]
    assert json.loads(adz("base", "ls", "--json").out) == []
    assert Hub().home == home
    assert Hub().bases() == []


def test_train_merge_load_evaluate_and_export(
    hub: Hub, data: Path, tiny_base_dir: Path, tmp_path: Path
) -> None:
    for seed in (1, 2):
        version = hub.train(data, name=f"a{seed}", options=[*FEW, f"training.seed={seed}"])
        assert (version.reference, version.manifest.adapter["rank"]) == (f"a{seed}@1", 4)
    merged = hub.merge("a1", "a2", rule="linear", name="both", weights=(0.5, 0.5))
    assert merged.version is not None
    assert merged.version == hub.resolve("both")
    assert [parent.name for parent in merged.version.manifest.parents] == ["a1", "a2"]

    model, tokenizer = hub.load("both")
    assert isinstance(model, peft.PeftModel)
    tokens = tokenizer("hello", return_tensors="pt")
    fresh = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(fresh, hub.path("both")).eval()
    with torch.no_grad():
        assert torch.equal(model(**tokens).logits, theirs(**tokens).logits)
    assert not isinstance(hub.load("tiny")[0], peft.PeftModel)

    scores = hub.evaluate("both", "a1", data=data, limit=5, shots=1)
    assert [(s.subject, s.n, s.shots) for s in scores] == [
        ("tiny", 5, 1),
        ("both", 5, 0),
        ("a1", 5, 0),
    ]
    hub.tag("a1", "prod")
    hub.train(data, name="a1", options=FEW)
    hub.tag("a1@2", "prod")
    assert hub.rollback("a1", "prod").number == 1
    hub.export("a1@prod", tmp_path / "out")
    imported = hub.import_adapter(tmp_path / "out", "copy")
    assert imported.manifest.payload == hub.resolve("a1@1").manifest.payload
    assert [v.reference for v in hub.versions("a1")] == ["a1@1", "a1@2"]
    assert [v.reference for v in hub.remove("a1@2")] == ["a1@2"]
    assert hub.resolve("a1").number == 1


def test_a_mistake_is_an_error_with_a_hint(hub: Hub, data: Path) -> None:
    with pytest.raises(AdzError, match=r"unknown option method\.rr"):
        hub.train(data, options=["method.rr=4"])
    with pytest.raises(AdzError, match="unknown method 'lorra'") as caught:
        hub.train(data, method="lorra")
    assert "lora" in caught.value.hint
    with pytest.raises(AdzError, match="unknown option densty"):
        hub.merge("a", "b", densty=0.2)
    assert hub.versions() == []


def test_a_server_runs_as_long_as_its_block(hub: Hub, tiny_base_dir: Path) -> None:
    with hub.serve(engine="transformers", api_key="secret") as url:
        client = openai.OpenAI(base_url=url, api_key="secret")
        assert [card.id for card in client.models.list()] == ["tiny"]
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=url, api_key="wrong").models.list()
    with pytest.raises(openai.APIConnectionError):
        openai.OpenAI(base_url=url, api_key="secret", max_retries=0).models.list()


def test_a_server_that_does_not_start_says_why(hub: Hub) -> None:
    with (
        pytest.raises(AdzError, match=r"exit code 2: adz: unknown base 'tinny'.*tiny"),
        hub.serve("tinny", engine="transformers"),
    ):
        raise AssertionError("nothing was served")


def test_the_notebook_runs(tiny_base_dir: Path, home: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "notebook.py")],
        env={**os.environ, "BASE": str(tiny_base_dir), "ENGINE": "transformers"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers = [line.split()[0] for line in done.stdout.splitlines()[-4:]]
    assert answers == ["base", "american@1", "spelling@1", "both@1"]


def test_importing_the_package_imports_no_torch() -> None:
    code = "import adapterhub, sys; adapterhub.Hub(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert adapterhub.Hub is Hub
