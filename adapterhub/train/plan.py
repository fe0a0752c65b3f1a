"""What a recipe means: its components, base, data and every default, before torch is needed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from adapterhub import specs
from adapterhub.bases.choose import choose_base
from adapterhub.bases.quantise import check_makes, stored_quantizer
from adapterhub.bases.verify import verify_base
from adapterhub.config import validate
from adapterhub.data import DataSet, Mixture, choose_format, mix, read_examples
from adapterhub.errors import usage_error
from adapterhub.manifest import BaseRecord, canonical_json, sha256_of
from adapterhub.models import compute_device, load_tokenizer
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Example, Registry
from adapterhub.reference import check_new_name
from adapterhub.train.pairs import check_pair
from adapterhub.train.recipe import Choice, DataOptions, TrainRecipe
from adapterhub.train.reports import check_installed

DEFAULT_LR = 2e-4
# Of 8 merges keep markedly less (docs/merge-quality.md), and of 16 nearly as much.
INPUT_MOMENTS_RANK = 32


class NoOptions(BaseModel):
    """The options of a component that has none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """A resolved recipe: nothing in it is left to a default.

    `lr_source` says where the learning rate came from. `stored` is what the base itself is
    quantised by, and `quantizer` what it is held by while training. `files` holds the data set,
    and the hold-out's where it has a file of its own.
    """

    recipe: TrainRecipe
    name: str
    base: BaseRecord
    tokenizer: Any
    method: specs.Method
    method_options: BaseModel
    quantizer: specs.Quantizer | None
    quantizer_options: BaseModel
    objective: specs.Objective
    objective_options: BaseModel
    files: tuple[DataSet, ...]
    mixture: Mixture
    prompt_format: Any
    lr_source: str
    stored: specs.Quantizer | None = None

    @property
    def train(self) -> Sequence[Example]:
        """What is learnt."""
        return self.mixture.train

    @property
    def holdout(self) -> Sequence[Example]:
        """What is held out."""
        return self.mixture.holdout

    @property
    def is_quantised(self) -> bool:
        """Whether the base in memory is."""
        return self.quantizer is not None or self.stored is not None

    @property
    def makes_base(self) -> bool:
        """Whether the result is a new base, not a version of an adapter."""
        return self.method.storage == "base"

    @property
    def resolved(self) -> dict[str, Any]:
        """The recipe with every default filled in, as it is stored."""
        return self.recipe.model_dump(mode="json")

    def digest(self) -> str:
        """`sha256:hex` over the recipe, the base and the data: equal runs share it."""
        parts = {
            "recipe": self.resolved,
            "base": self.base.digests.model_dump(mode="json"),
            "data": [data.sha256 for data in self.files],
        }
        return sha256_of(canonical_json(parts))

    def steps(self, rows: int) -> int:
        """Optimizer steps over `rows` training rows."""
        training = self.recipe.training
        if training.max_steps:
            return training.max_steps
        # What generates learns from several answers to each row.
        answers = getattr(self.objective_options, "generations", 1)
        batches = math.ceil(rows * answers / training.batch_size)
        return math.ceil(math.ceil(batches / training.accumulation) * training.epochs)


def make_plan(
    recipe: TrainRecipe,
    registry: Registry,
    tokenizer_of: Callable[[BaseRecord], Any] = load_tokenizer,
) -> Plan:
    """Resolve `recipe`; raises AdzError for whatever is unknown, missing or does not fit."""
    plugins = load_plugins()
    method = plugins.get(specs.Method, recipe.method.name)
    quantizer = plugins.get(specs.Quantizer, recipe.quantizer.name) if recipe.quantizer else None
    objective = plugins.get(specs.Objective, recipe.objective.name)
    if objective.unavailable:
        raise usage_error(f"there is no objective {objective.name}", objective.unavailable)
    check_pair(method, quantizer)
    if quantizer is not None:
        check_makes(quantizer)
    check_installed(recipe.training.report_to)
    _check_optimizer(recipe.training.optimizer)
    moments = _input_moments(recipe, method)
    method_options = _options("method", method, recipe.method)
    quantizer_options = (
        _options("quantizer", quantizer, recipe.quantizer)
        if quantizer and recipe.quantizer
        else NoOptions()
    )
    objective_options = _options("objective", objective, recipe.objective)
    name = check_new_name(recipe.name) if recipe.name is not None else _name_from(recipe.data)
    base = choose_base(registry, recipe.base)
    if objective.generates and recipe.data.answers == "all":
        raise usage_error(f"{objective.name} learns from its own answers: data.answers is last")
    _check_name(name, method, registry)
    verify_base(base)
    stored = _stored_quantizer(base, method, quantizer)
    files, mixture = _read_data(recipe.data, objective)
    tokenizer = tokenizer_of(base)
    prompt_format = recipe.data.prompt_format
    if prompt_format == "auto":
        prompt_format = choose_format(mixture.train, tokenizer)
    lr, lr_source = _learning_rate(recipe, method, method_options)
    resolved = recipe.model_copy(
        update={
            "name": name,
            "base": base.name,
            "data": _resolved_data(recipe.data, files).model_copy(
                update={"prompt_format": prompt_format}
            ),
            "method": _filled(plugins.name_of(method), method_options),
            "quantizer": _filled(plugins.name_of(quantizer), quantizer_options)
            if quantizer
            else None,
            "objective": _filled(plugins.name_of(objective), objective_options),
            "training": recipe.training.model_copy(update={"lr": lr, "input_moments": moments}),
        }
    )
    return Plan(
        resolved, name, base, tokenizer, method, method_options, quantizer, quantizer_options,
        objective, objective_options, files, mixture, prompt_format, lr_source, stored,
    )  # fmt: skip


def _check_name(name: str, method: specs.Method, registry: Registry) -> None:
    if name in {record.name for record in registry.bases()}:
        raise usage_error(f"{name!r} is the name of a base", "choose another with --name")
    if method.storage == "base" and name in registry.names():
        raise usage_error(
            f"{method.name} makes a base, and {name!r} is the name of an adapter",
            "choose another with --name",
        )


def _input_moments(recipe: TrainRecipe, method: specs.Method) -> int:
    given = recipe.training.input_moments
    if given is None:
        return INPUT_MOMENTS_RANK if method.mergeable and method.storage == "peft" else 0
    if given and not method.mergeable:
        raise usage_error(
            f"{method.name} adapters cannot be merged, so they need no training.input_moments"
        )
    return given


def _stored_quantizer(
    base: BaseRecord, method: specs.Method, quantizer: specs.Quantizer | None
) -> specs.Quantizer | None:
    name = stored_quantizer(base)
    if name is None:
        return None
    if quantizer is not None:
        raise usage_error(
            f"the base {base.name} is stored by {name} already", "leave --quantizer away"
        )
    stored = load_plugins().get(specs.Quantizer, name)
    check_pair(method, stored)
    return stored


def _check_optimizer(name: str) -> None:
    if name.startswith("paged_") and compute_device().type == "cpu":
        raise usage_error(
            f"training.optimizer={name} moves its state between the memory of a GPU and the CPU's, "
            "and there is no GPU",
            "adamw_8bit keeps it small on a CPU too",
        )


def _options(word: str, component: specs.Component, choice: Choice) -> BaseModel:
    model = load_plugins().load_options(component) or NoOptions
    options: BaseModel = validate(model, choice.options, word)
    return options


def _filled(name: str, options: BaseModel) -> Choice:
    return Choice(name=name, **options.model_dump(mode="json"))


def _name_from(data: DataOptions) -> str:
    if len(data.sources) > 1:
        raise usage_error("no name can be made from several data sets", "give one with --name")
    path = data.sources[0].path
    name = re.sub(r"[^a-z0-9._-]+", "-", path.name.split(".")[0].lower()).strip("._-")[:64]
    if not name:
        raise usage_error(f"no name can be made from {path.name!r}", "give one with --name")
    return check_new_name(name)


def _read_data(
    options: DataOptions, objective: specs.Objective
) -> tuple[tuple[DataSet, ...], Mixture]:
    files = [read_examples(s.path, s.format, columns=s.columns) for s in options.sources]
    weights = [source.weight for source in options.sources]
    if not isinstance(options.holdout, Path):
        mixture = mix(files, weights, options.holdout)
    else:
        held = read_examples(options.holdout, options.format, columns=options.columns)
        mixture = replace(mix(files, weights, 0.0), holdout=held.examples)
        files.append(held)
    for data in files:
        _check_kind(data, objective)
    return tuple(files), mixture


def _resolved_data(options: DataOptions, files: Sequence[DataSet]) -> DataOptions:
    """With the formats that were recognised: one for a single file, else one for each."""
    if isinstance(options.train, Path):
        return options.model_copy(update={"format": files[0].format})
    named = tuple(
        source.model_copy(update={"format": data.format})
        for source, data in zip(options.sources, files, strict=False)
    )
    return options.model_copy(update={"train": named})


def _check_kind(data: DataSet, objective: specs.Objective) -> None:
    if data.kind in objective.kinds:
        return
    formats = load_plugins().components(specs.Format).values()
    fits = ", ".join(sorted(f.name for f in formats if f.kind in objective.kinds))
    raise usage_error(
        f"the objective {objective.name} does not learn from {data.format} rows ({data.file})",
        f"formats that it learns from: {fits}",
    )


def _learning_rate(
    recipe: TrainRecipe, method: specs.Method, options: BaseModel
) -> tuple[float, str]:
    if recipe.training.lr is not None:
        return recipe.training.lr, "given"
    suggested = getattr(type(options), "suggested_lr", None)
    if suggested is None:
        return DEFAULT_LR, "default"
    return float(suggested), f"suits {method.name}"
