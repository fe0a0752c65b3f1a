"""A whole search on the tiny base: what is held, kept, reported and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterhub.data import read_examples
from adapterhub.data.split import prompt_key
from adapterhub.errors import AdzError
from adapterhub.plugins import open_registry
from adapterhub.tune.recipe import TuneRecipe
from adapterhub.tune.rows import read_parts
from adapterhub.tune.search import best_of, search

from .conftest import ANSWER_TOKENS


def tune(adz: Any, pair: list[Path], *more: str) -> Any:
    files = [part for path in pair for part in ("--tune", path)]
    limit = ("-o", f"tune.max_tokens={ANSWER_TOKENS}", "--trials", "4")
    return adz("merge", "first", "second", *files, *limit, *more, "--json")


def test_the_winner_is_kept_with_its_trials_and_report(
    adz: Any, pair: list[Path], tiny_base_dir: Path, tmp_path: Path
) -> None:
    done = tune(adz, pair, "--rule", "linear", "--name", "both")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    trials = found["tuning"]["trials"]
    assert len(trials) == 4
    assert {trial["rule"] for trial in trials} == {"linear"}
    assert (trials[0]["weights"], trials[0]["scale"]) == ([0.5, 0.5], 1.0)
    best = max(trials, key=lambda trial: (trial["mean_share"], trial["worst_share"]))
    assert found["weights"] == best["weights"]
    assert found["scale"] == best["scale"]

    version = open_registry().resolve("both")
    assert version.manifest.recipe["scale"] == best["scale"]
    open_registry().artifacts(version, tmp_path / "kept")
    kept = (tmp_path / "kept" / "trials.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in kept] == trials

    # The report says what PEFT itself gets from the stored version, on the other half.
    row = next(row for row in found["tuning"]["report"] if row["subject"] == "tuned")
    parts = read_parts(TuneRecipe(data=tuple(pair)), seed=0)
    model = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(model, open_registry().path(version)).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_base_dir)
    for score, task in zip(row["scores"], parts.report, strict=True):
        right = 0
        for example in task.rows:
            ids = tokenizer(example.prompt, return_tensors="pt")
            out = model.generate(**ids, max_new_tokens=ANSWER_TOKENS, do_sample=False)
            text = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
            right += text.split("\n")[0].strip() == example.completion.strip()
        assert score["n"] == len(task.rows)
        assert score["score"] == pytest.approx(right / len(task.rows))


def test_no_prompt_is_in_both_parts(pair: list[Path]) -> None:
    parts = read_parts(TuneRecipe(data=tuple(pair)), seed=0)
    for path, chosen, reported in zip(pair, parts.choose, parts.report, strict=True):
        one, other = ({prompt_key(row) for row in part.rows} for part in (chosen, reported))
        assert not one & other
        assert one | other == {prompt_key(row) for row in read_examples(path).examples}
    with pytest.raises(AdzError, match="no rows left"):
        read_parts(TuneRecipe(data=(pair[0],), test=(pair[0],)), seed=0)


def test_ctrl_c_keeps_the_best_so_far(home: Path) -> None:
    from adapterhub.merge.recipe import MergeRecipe
    from adapterhub.merge.silent import Silent
    from adapterhub.tune.space import SearchSpace

    space = SearchSpace(MergeRecipe(adapters=("a", "b")), (("linear", "core"),))
    values = iter([0.2, 0.7, 0.4])

    def measure(recipe: MergeRecipe, number: int) -> Any:
        value = next(values, None)
        if value is None:
            raise KeyboardInterrupt
        return [], [value]

    def run() -> Any:
        return search(space, measure, Silent(), seed=0, budget=9, minutes=None)

    trials = run()
    assert [trial.value for trial in trials] == [0.2, 0.7, 0.4]
    assert best_of(trials).number == 1
    with pytest.raises(KeyboardInterrupt):
        run()


def test_the_same_seed_tries_the_same(home: Path) -> None:
    from adapterhub.merge.recipe import MergeRecipe
    from adapterhub.merge.silent import Silent
    from adapterhub.tune.space import SearchSpace

    recipe = MergeRecipe(adapters=("a", "b"), density=0.3)
    space = SearchSpace(recipe, (("linear", "core"), ("ties", "dense"), ("dare", "knots")))

    def run(seed: int) -> list[dict[str, Any]]:
        def measure(recipe: MergeRecipe, number: int) -> Any:
            return [], [1 / (1 + abs(recipe.scale - 1.4))]

        found = search(space, measure, Silent(), seed=seed, budget=20, minutes=None)
        return [trial.recipe for trial in found]

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert {recipe["density"] for recipe in run(1)} == {0.3}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--trials", "3"), "--trials without --tune"),
        (("--tune", "rows.jsonl", "--trials", "0"), "tune.trials"),
        (("--tune", "rows.jsonl", "--dry-run"), "--tune and --dry-run"),
        (("--tune", "rows.jsonl", "--test", "a", "--test", "b"), "one --test for each --tune"),
        (("--tune", "rows.jsonl", "--metric", "exact"), "unknown metric 'exact'"),
    ],
)
def test_usage_errors(adz: Any, arguments: tuple[str, ...], reason: str) -> None:
    done = adz("merge", "first", "second", *arguments)
    assert (done.code, done.out) == (2, "")
    assert reason in done.err
