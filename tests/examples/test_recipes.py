"""The example recipes: valid, on data that exists, two LoRA and one QLoRA."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapterhub.config import read_recipe, validate
from adapterhub.train.recipe import TrainRecipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "examples" / "recipes").glob("*.yaml"))


def load(path: Path) -> TrainRecipe:
    return validate(TrainRecipe, read_recipe(path))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_names_its_file_and_its_training_rows(path):
    recipe = load(path)
    assert recipe.name == path.stem
    data = (path.parent / recipe.data.train).resolve()
    assert data == ROOT / "examples" / "data" / f"{path.stem}.train.jsonl"
    assert json.loads(data.read_text(encoding="utf-8").splitlines()[0])["completion"]


def test_one_recipe_is_qlora():
    assert {path.stem for path in RECIPES} == {"wordnet", "american", "spelling", "spoken"}
    quantizers = {path.stem: load(path).quantizer for path in RECIPES}
    assert {name for name, choice in quantizers.items() if choice} == {"american"}
    assert quantizers["american"].name == "nf4"
