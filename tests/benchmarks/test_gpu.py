"""benchmarks/gpu.py asks for what there is, and tells what went wrong."""

from __future__ import annotations

from pathlib import Path

import gpu
import yaml

from adapterhub import Hub, specs
from adapterhub.plugins import load_plugins
from adapterhub.train.recipe import TrainRecipe


def test_every_case_names_what_there_is() -> None:
    plugins = load_plugins()
    cases = [case for g in gpu.GROUPS if g not in ("resume", "stored") for case in gpu.cases(g)]
    assert len({case.name for case in cases}) == len(cases) > 35
    for case in cases:
        plugins.get(specs.Method, case.method)
        if case.quantizer:
            plugins.get(specs.Quantizer, case.quantizer)
        for option in case.options:
            section, _, value = option.partition("=")
            first, _, rest = section.partition(".")
            if section in ("objective", "objective.name"):
                plugins.get(specs.Objective, value)
            elif first == "training":
                TrainRecipe.model_validate(
                    {"data": {"train": "x"}, "training": {rest: yaml.safe_load(value)}}
                )


def test_what_fails_is_a_line_of_the_table(tmp_path: Path) -> None:
    found = gpu.run(Hub(tmp_path), gpu.Case("none", base="nobody"))
    assert "there is no base model yet" in found.problem
    page = gpu.page([found, gpu.Found("fine", facts={"holdout_loss_base": 2.0, "holdout_loss": 1})])
    assert f"| none | {found.problem} |  |  |" in page
    assert "| fine | ok | 2.000 | 1.000 |" in page
