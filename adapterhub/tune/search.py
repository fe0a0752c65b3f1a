"""The search itself: optuna's TPE proposes, we merge and score."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import optuna

from adapterhub.errors import AdzError
from adapterhub.merge.recipe import MergeRecipe
from adapterhub.protocols import Progress
from adapterhub.tune.result import Trial
from adapterhub.tune.scorer import TaskScore
from adapterhub.tune.space import SearchSpace

# The share of the trials that begin at a pair's defaults.
_STARTS = 1 / 3

Measure = Callable[[MergeRecipe, int], tuple[list[TaskScore], list[float]]]
"""Merge and score a candidate, of this number: the scores and the shares, by task."""


def search(
    space: SearchSpace,
    measure: Measure,
    progress: Progress,
    *,
    seed: int,
    budget: int | None,
    minutes: float | None,
) -> list[Trial]:
    """The trials in their order; the first is the recipe as it was given.

    Ctrl-C ends the search with the trials that are finished, if there is one.
    """
    study = _study(seed, budget)
    for number, point in enumerate(space.starts()):
        if number == 0 or budget is None or number < budget * _STARTS:
            study.enqueue_trial(point)
    trials: list[Trial] = []
    end = time.monotonic() + 60 * minutes if minutes is not None else None
    try:
        with progress.task(_title(space, budget, minutes), budget) as bar:
            while len(trials) < (budget or len(trials) + 1):
                if trials and end is not None and time.monotonic() >= end:
                    break
                trials.append(_try(study, space, measure, len(trials)))
                best = best_of(trials)
                bar.advance(1, f"best {best.value:.3f}")
                if best is trials[-1]:
                    progress.note(f"trial {best.number}: {best.value:.3f} with {_words(best)}")
    except KeyboardInterrupt:
        if not trials:
            raise
        progress.note(f"stopped after {len(trials)} trials: the best one is kept")
    return trials


def best_of(trials: list[Trial]) -> Trial:
    """The highest mean share, then the highest worst share, then the first."""
    return max(trials, key=lambda trial: (trial.value, trial.worst, -trial.number))


def _study(seed: int, budget: int | None) -> optuna.study.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        # Both options say that they may change; releases are pinned.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(
            seed=seed,
            multivariate=True,
            group=True,
            n_startup_trials=max(4, (budget or 30) // 3),
        )
    return optuna.create_study(direction="maximize", sampler=sampler)


def _try(study: optuna.study.Study, space: SearchSpace, measure: Measure, number: int) -> Trial:
    asked = study.ask()
    recipe = space.suggest(asked)
    began = time.monotonic()
    scores: list[TaskScore] = []
    shares: list[float] = []
    problem = None
    try:
        scores, shares = measure(recipe, number)
    except AdzError as error:
        # The recipe as it was given must work; a candidate may fail.
        if number == 0:
            raise
        problem = error.message
    seconds = time.monotonic() - began
    trial = Trial(number, _searched(recipe), tuple(shares), tuple(scores), seconds, problem)
    study.tell(asked, trial.value)
    return trial


def _searched(recipe: MergeRecipe) -> dict[str, Any]:
    fields = {"rule", "space", "weights", "scale", "density", "rank", "compat", "seed", "options"}
    return recipe.model_dump(mode="json", include=fields & recipe.model_fields_set)


def _title(space: SearchSpace, budget: int | None, minutes: float | None) -> str:
    limits = [f"{budget} trials"] if budget else []
    limits += [f"{minutes:g} minutes"] if minutes else []
    count = len(space.pairs)
    pairs = f"{count} pairs of rule and space" if count > 1 else "/".join(space.pairs[0])
    return f"tuning over {pairs}, {' or '.join(limits)}"


def _words(trial: Trial) -> str:
    recipe = trial.recipe
    weights = ",".join(f"{weight:.3g}" for weight in recipe.get("weights") or ())
    text = f"{recipe['rule']} in {recipe['space']}" + (f", weights {weights}" if weights else "")
    numbers = [f"{key} {recipe[key]:.3g}" for key in ("scale", "density") if recipe.get(key)]
    return ", ".join([text, *numbers])
