"""A mergekit configuration that names LoRA adapters, read as a recipe. mergekit is not needed.

The updates take the place of the models' differences from their base. What has no meaning for an
adapter is refused by name; what changes nothing in its weights is told in a note.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from adapterhub.errors import usage_error

_SHARED = frozenset({"weight", "int8_mask", "normalize", "lambda"})
_TRIMMED = _SHARED | {"density"}
_DROPPED = _TRIMMED | {"rescale"}


@dataclass(frozen=True, slots=True)
class _Method:
    """Our rule, mergekit's own defaults, and the parameters that have a meaning."""

    rule: str
    parameters: frozenset[str]
    normalize: bool = False
    consensus: bool | None = None


_METHODS = {
    "linear": _Method("linear", frozenset({"weight", "normalize"}), normalize=True),
    "task_arithmetic": _Method("linear", _SHARED),
    "ties": _Method("ties", _TRIMMED, normalize=True),
    "dare_linear": _Method("dare", _DROPPED),
    "dare_ties": _Method("dare_ties", _DROPPED),
    "breadcrumbs": _Method("breadcrumbs", _TRIMMED | {"gamma"}, consensus=False),
    "breadcrumbs_ties": _Method("breadcrumbs", _TRIMMED | {"gamma"}, consensus=True),
    "della": _Method("della", _DROPPED | {"epsilon"}, normalize=True, consensus=True),
    "della_linear": _Method("della", _DROPPED | {"epsilon"}, consensus=False),
    "slerp": _Method("slerp", frozenset({"t"})),
}
_KEYS = {
    "merge_method", "models", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Model:
    """An entry of `models`. adapter: None for the base itself, whose update is zero."""

    text: str
    base: str | None
    adapter: str | None
    parameters: Mapping[str, Any]


def is_mergekit(values: Mapping[str, Any]) -> bool:
    """Whether a recipe's mapping is a mergekit configuration."""
    return "merge_method" in values


def from_mergekit(
    values: Mapping[str, Any], bases: Mapping[str, str]
) -> tuple[dict[str, Any], list[str]]:
    """The fields of a `MergeRecipe`, and notes on what has no effect here.

    bases: the sources of the known bases, by name; a base that is among them is checked against
    the adapters', another one is a note. Usage errors name the key that cannot be mapped.
    """
    method = _METHODS.get(str(values["merge_method"]))
    if method is None:
        _refuse(f"merge_method {values['merge_method']}", "known: " + ", ".join(_METHODS))
    _check_keys(values)
    base = _text(values, "base_model")
    models = _models(values, base)
    adapters = [model for model in models if model.adapter is not None]
    shared = _mapping(values.get("parameters"), "parameters")
    for owner in (shared, *(model.parameters for model in models)):
        for name in owner:
            if name not in method.parameters:
                _refuse(f"the parameter {name} of {values['merge_method']}")
    recipe: dict[str, Any] = {"rule": method.rule}
    if values["merge_method"] == "slerp":
        adapters, recipe["weights"] = _slerp(adapters, base, shared)
    else:
        if base is not None and "+" in base:
            _refuse("an adapter as base_model", "only slerp starts from one")
        _weigh(recipe, values["merge_method"], method, models, shared)
    recipe["adapters"] = [model.adapter for model in adapters]
    notes = _notes(values)
    _name_base(recipe, notes, {model.base for model in models if model.base}, bases)
    return recipe, notes


def _check_keys(values: Mapping[str, Any]) -> None:
    for key in values:
        if key not in _KEYS:
            hint = "layers of adapters are merged alike" if key in ("slices", "modules") else ""
            _refuse(str(key), hint)
    if values.get("tokenizer_source") not in (None, "base"):
        _refuse("tokenizer_source", "an adapter has the tokenizer of its base")


def _models(values: Mapping[str, Any], base: str | None) -> list[_Model]:
    entries = values.get("models")
    if not isinstance(entries, list) or not entries:
        raise usage_error("the mergekit configuration names no models", "list them under models:")
    models = []
    for entry in entries:
        options = _mapping(entry, "an entry of models")
        for key in options:
            if key not in ("model", "parameters"):
                _refuse(f"{key} of a model")
        text = _text(options, "model")
        if text is None:
            raise usage_error("an entry of models names no model")
        own, _, adapter = text.partition("+")
        where = f"the parameters of {text}"
        parameters = _mapping(options.get("parameters"), where)
        if adapter:
            models.append(_Model(text, own, adapter, parameters))
        else:
            is_base = text == (base or "").partition("+")[0]
            models.append(_Model(text, base, None if is_base else text, parameters))
    return models


def _slerp(
    adapters: Sequence[_Model], base: str | None, shared: Mapping[str, Any]
) -> tuple[list[_Model], list[float]]:
    """The way goes from `base_model`, which is one of the two, to the other."""
    first = [model for model in adapters if base in (model.text, model.adapter)]
    if len(adapters) != 2 or len(first) != 1:
        _refuse("slerp of these models", "name two adapters, one of them as base_model")
    other = adapters[1 - adapters.index(first[0])]
    t = _number(shared, "t", "parameters")
    if t is None:
        raise usage_error("slerp has no parameter t")
    return [first[0], other], [1 - t, t]


def _weigh(
    recipe: dict[str, Any],
    name: str,
    method: _Method,
    models: Sequence[_Model],
    shared: Mapping[str, Any],
) -> None:
    """Weights, scale, density and options: a model's own parameter wins over the shared one."""
    normalize = _flag(shared, "normalize", method.normalize)
    adapters = [model for model in models if model.adapter is not None]
    # The weight of the base itself counts in `linear`'s mean, and nowhere else.
    counted = models if name == "linear" else adapters
    weights = {model.text: _own(model, shared, "weight") for model in counted}
    for text, weight in weights.items():
        if weight is None:
            raise usage_error(f"{text} has no weight", "mergekit has no default for it")
    total = sum(weight for weight in weights.values() if weight is not None)
    if name == "linear" and not normalize and abs(total - 1) > 1e-6:
        what = f"linear without normalize and with weights that sum to {total:g}"
        _refuse(what, "it would scale the base")
    divisor = total if normalize and method.rule == "linear" and abs(total) >= 1e-8 else 1.0
    recipe["weights"] = [(weights[model.text] or 0.0) / divisor for model in adapters]
    scale = _number(shared, "lambda", "parameters")
    if scale is not None:
        recipe["scale"] = scale
    if method.rule == "linear":
        return
    recipe["compat"] = "mergekit"
    recipe["density"] = _common(adapters, shared, "density", 1.0)
    options: dict[str, Any] = {"normalize": normalize}
    if "rescale" in method.parameters:
        options["rescale"] = _flag(shared, "rescale", True)
    if method.consensus is not None:
        options["consensus"] = method.consensus
    for key in ("gamma", "epsilon"):
        value = _common(adapters, shared, key, None)
        if value is not None:
            options[key] = value
    recipe["options"] = options


def _common(
    models: Sequence[_Model], shared: Mapping[str, Any], key: str, default: float | None
) -> float | None:
    values = {_own(model, shared, key) for model in models}
    if len(values) > 1:
        given = ", ".join("none" if value is None else f"{value:g}" for value in values)
        _refuse(f"a {key} for each model ({given})", f"give all the same {key}")
    value = values.pop() if values else None
    return default if value is None else value


def _own(model: _Model, shared: Mapping[str, Any], key: str) -> float | None:
    own = _number(model.parameters, key, model.text)
    return _number(shared, key, "parameters") if own is None else own


def _number(parameters: Mapping[str, Any], key: str, where: str) -> float | None:
    value = parameters.get(key)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping) and value.get("filter") in (None, "*"):
        value = value.get("value")
    if value is None:
        return None
    if isinstance(value, list | Mapping):
        _refuse(f"the {key} of {where} by layer or by tensor", "give one number")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise usage_error(f"the {key} of {where} is a number, got {value!r}") from None


def _flag(parameters: Mapping[str, Any], key: str, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool | int):
        raise usage_error(f"{key} is true or false, got {value!r}")
    return bool(value)


def _notes(values: Mapping[str, Any]) -> list[str]:
    notes = [
        f"{key} {values[key]} is not used: a merged adapter is float32"
        for key in ("dtype", "out_dtype")
        if values.get(key) not in (None, "float32")
    ]
    if values["merge_method"] == "slerp":
        notes.append("mergekit interpolates whole weights, here it is the updates")
    return notes


def _name_base(
    recipe: dict[str, Any], notes: list[str], named: set[str], bases: Mapping[str, str]
) -> None:
    named = {text.partition("+")[0] for text in named}
    if len(named) > 1:
        _refuse(f"two bases ({', '.join(sorted(named))})", "merge adapters of one base")
    for text in named:
        known = [name for name, source in bases.items() if text in (name, source)]
        if known:
            recipe["base"] = known[0]
        else:
            notes.append(f"base_model {text} is not a known base and not checked: --base NAME is")


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise usage_error(f"{where} is a mapping, got {value!r}")
    return value


def _text(values: Mapping[str, Any], key: str) -> str | None:
    value = values.get(key)
    if value is None or isinstance(value, str):
        return value
    raise usage_error(f"{key} is a name or a path, got {value!r}")


def _refuse(what: str, hint: str = "") -> NoReturn:
    raise usage_error(f"this of mergekit cannot be done with adapters: {what}", hint)
