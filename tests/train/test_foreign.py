"""Recipes of other trainers: every key mapped, told or listed.

The recipes in `foreign/` are ours, written with the keys of the projects' own examples:
axolotl examples/llama-3/lora-8b.yml, LLaMA-Factory examples/train_lora/llama3_lora_sft.yaml, NeMo
AutoModel examples/llm_finetune/llama3_2/llama3_2_1b_squad_peft.yaml, and the alignment handbook's
recipes for TRL (all Apache-2.0).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from adapterhub.config import read_recipe
from adapterhub.errors import AdzError
from adapterhub.train.foreign import recognise, translate

HERE = Path(__file__).parent / "foreign"
NAMES = {
    "axolotl": "Axolotl",
    "llama_factory": "LLaMA-Factory",
    "nemo_automodel": "NeMo AutoModel",
    "trl": "TRL",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The recipes with the data that they name."""
    target = Path(shutil.copytree(HERE, tmp_path / "recipes"))
    rows = [{"instruction": f"Say {n}", "input": "", "output": str(n)} for n in range(20)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (target / "data").mkdir()
    (target / "data" / "say.jsonl").write_text(text)
    (target / "data" / "dataset_info.json").write_text(
        json.dumps({"say": {"file_name": "say.jsonl", "formatting": "alpaca"}})
    )
    return target


# What every one of the four says, in its own words.
COMMON = {
    "lr": 2e-4, "batch_size": 2, "accumulation": 4, "epochs": 3, "schedule": "cosine",
    "weight_decay": 0.01, "seed": 7,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_each_is_recognised_and_every_key_has_a_place(name: str, folder: Path) -> None:
    values = read_recipe(folder / f"{name}.yaml")
    project = recognise(values)
    assert project is not None
    assert project.name == NAMES[name]
    read = translate(project, values, folder, {"llama": "meta-llama/Llama-3.2-1B"})
    assert read.unknown == []
    training = read.values["training"]
    assert {key: training[key] for key in COMMON} == COMMON
    assert read.values["base"] == "llama"
    assert read.values["method"]["r"] == 8
    assert read.values["method"]["alpha"] == 16
    assert read.values["method"]["targets"] == "all-linear"
    # Every key of the recipe is either in the result or named in a note.
    for key, value in project.flatten(values).items():
        told = any(note.startswith(f"{key} is not used: ") for note in read.notes)
        assert value is None or (key in project.moved) + (key in project.read) + told == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_dry_run_of_each(name: str, folder: Path, adz: Any, tiny_base: Any) -> None:
    done = adz("train", "-c", folder / f"{name}.yaml", "--base", "tiny", "--name", "say",
               "-o", "quantizer=null", "--dry-run", "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert f"read as a recipe of {NAMES[name]}" in done.err
    assert "is not used: " in done.err
    recipe = json.loads(done.out)["recipe"]
    assert {key: recipe["training"][key] for key in COMMON} == COMMON


def test_an_unknown_key_is_an_error_until_it_is_ignored(
    folder: Path, adz: Any, tiny_base: Any
) -> None:
    path = folder / "axolotl.yaml"
    path.write_text(path.read_text() + "\nneftune_noise_alpha: 5\n")
    arguments = ("train", "-c", path, "--base", "tiny", "--name", "say", "--dry-run", "-o",
                 "quantizer=null")  # fmt: skip
    refused = adz(*arguments)
    assert refused.code == 2
    assert "unknown keys in this Axolotl recipe: neftune_noise_alpha" in refused.err
    done = adz(*arguments, "--ignore-unknown")
    assert done.code == 0, done.err
    assert "ignored: neftune_noise_alpha" in done.err


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("axolotl", {"adapter": "llama-adapter"}, "adapter llama-adapter"),
        ("axolotl", {"train_on_inputs": True}, "train_on_inputs"),
        ("axolotl", {"lr_scheduler": "one_cycle"}, "the schedule one_cycle"),
        ("axolotl", {"datasets": [{"path": "data/say.jsonl", "type": "own"}]}, "the type own"),
        ("llama_factory", {"finetuning_type": "freeze"}, "finetuning_type freeze"),
        ("llama_factory", {"dataset": "other"}, "the dataset other, which"),
        ("nemo_automodel", {"step_scheduler": {"global_batch_size": 7, "local_batch_size": 2}},
         "global_batch_size 7, no multiple of local_batch_size 2"),
        ("trl", {"use_peft": False}, "use_peft: false"),
    ],
)  # fmt: skip
def test_a_value_without_a_counterpart_is_named(
    name: str, change: dict[str, Any], message: str, folder: Path
) -> None:
    values = {**read_recipe(folder / f"{name}.yaml"), **change}
    project = recognise(values)
    assert project is not None
    with pytest.raises(AdzError) as caught:
        translate(project, values, folder, {})
    assert message in caught.value.message


def test_what_choices_become() -> None:
    def read(**changes: Any) -> dict[str, Any]:
        values = {"base_model": "x", "datasets": [], **changes}
        project = recognise(values)
        assert project is not None
        return translate(project, values, Path(), {}).values

    assert read(adapter="qlora")["quantizer"] == {"name": "nf4"}
    assert read(load_in_8bit=True)["quantizer"] == {"name": "int8"}
    assert read(peft_use_dora=True)["method"] == {"name": "dora"}
    assert read(rl="ipo")["objective"] == {"name": "dpo", "loss": "ipo"}
    assert read(lora_target_modules=["q_proj"])["method"] == {"targets": ["q_proj"]}


def test_our_own_recipes_are_nobodys() -> None:
    for path in sorted((Path(__file__).parents[2] / "examples" / "recipes").glob("*.yaml")):
        assert recognise(read_recipe(path)) is None
