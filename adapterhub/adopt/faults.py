"""What is wrong with one adapter by itself: its files, its configuration, its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adapterhub import specs
from adapterhub.adopt.found import Found
from adapterhub.adopt.weights import Values
from adapterhub.bases.headers import TensorInfo
from adapterhub.bases.modules import LOW_RANK_PAIRS, MAX_RANK, AdapterKey
from adapterhub.bases.scan import FLOATS
from adapterhub.plugins import load_plugins

Pairs = Mapping[str, Mapping[str, str]]


def config_problem(config: Mapping[str, Any]) -> str | None:
    """Why an adapter_config.json says too little, or what makes no sense."""
    kind = config.get("peft_type")
    if not isinstance(kind, str) or not kind:
        return "it names no peft_type"
    if kind != "LORA":
        return None
    pattern = config.get("rank_pattern")
    if pattern is not None and not isinstance(pattern, dict):
        return "rank_pattern is no mapping"
    ranks = {"r": config.get("r"), **(pattern or {})}
    for key, rank in ranks.items():
        if type(rank) is not int or rank < 1:
            return f"{key[:60]} is {str(rank)[:60]!r}, not a rank"
    alpha = config.get("lora_alpha")
    if alpha is not None and type(alpha) not in (int, float):
        return f"lora_alpha is {str(alpha)[:60]!r}, not a number"
    return None


def check_tensors(
    found: Found, tensors: Mapping[str, TensorInfo], keys: Mapping[str, AdapterKey], values: Values
) -> None:
    """Note what is wrong with the tensors, whatever base they were made for."""
    if not tensors:
        found.add("no-tensors", "error", "it holds no tensor")
        return
    if values.broken:
        text = _several(sorted(values.broken), "tensors hold NaN or Inf: its training diverged")
        found.add("not-finite", "error", text)
    pairs = _pairs(keys)
    factors = [name for names in pairs.values() for name in names.values()]
    # Some methods keep indices beside their floats.
    strange = [f"{n} is {tensors[n].dtype}" for n in factors if tensors[n].dtype not in FLOATS]
    if strange:
        found.add("not-float", "error", _several(strange, "factors are no floats"))
    _check_ranks(found, tensors, pairs)
    _check_effect(found, pairs, values, len(tensors))


def check_engines(found: Found, tensors: Mapping[str, TensorInfo]) -> None:
    """Note what an engine would refuse or leave out."""
    plugins = load_plugins()
    for name, engine in plugins.components(specs.Engine).items():
        limits = plugins.load_limits(engine)
        for reason in limits(found.config, tensors) if limits else ():
            found.add(name, "note", f"{name} {reason}")


def _pairs(keys: Mapping[str, AdapterKey]) -> Pairs:
    """By module: the tensor's name of each low-rank parameter."""
    wanted = {*LOW_RANK_PAIRS, *LOW_RANK_PAIRS.values(), "lora_E"}
    pairs: dict[str, dict[str, str]] = {}
    for name, key in keys.items():
        if key.parameter in wanted:
            pairs.setdefault(key.module, {})[key.parameter] = name
    return pairs


def _products(pairs: Pairs) -> Iterator[tuple[str, str, str | None]]:
    """The names of each module's factors: right, left, and AdaLoRA's diagonal between them."""
    for names in pairs.values():
        for right, left in LOW_RANK_PAIRS.items():
            if right in names and left in names:
                yield names[right], names[left], names.get("lora_E")


def _check_ranks(found: Found, tensors: Mapping[str, TensorInfo], pairs: Pairs) -> None:
    config = found.config
    halves = [
        f"{names[one]} has no {other}"
        for names in pairs.values()
        for pair in LOW_RANK_PAIRS.items()
        for one, other in (pair, pair[::-1])
        if one in names and other not in names
    ]
    if halves:
        found.add("missing-half", "error", _several(halves, "factors stand alone"))
    # There one pair of factors serves all experts of a layer, or one is stored as its blocks.
    if config.get("target_parameters") or config.get("use_bdlora"):
        return
    allowed = {config.get("r"), *(config.get("rank_pattern") or {}).values()}
    wrong, high = [], []
    for right, left, _ in _products(pairs):
        shapes = tensors[right].shape, tensors[left].shape
        if min(map(len, shapes)) < 2 or shapes[0][0] != shapes[1][1]:
            wrong.append(f"{right} is {shapes[0]}, {left} is {shapes[1]}")
        elif config["peft_type"] == "LORA" and shapes[0][0] not in allowed:
            wrong.append(f"{right} has rank {shapes[0][0]}, its configuration says {config['r']}")
        elif shapes[0][0] > MAX_RANK:
            high.append(f"{right} has rank {shapes[0][0]}")
    if wrong:
        found.add("rank-mismatch", "error", _several(wrong, "ranks do not agree"))
    if high:
        found.add("high-rank", "error", _several(high, f"ranks are above {MAX_RANK}"))


def _check_effect(found: Found, pairs: Pairs, values: Values, tensors: int) -> None:
    products = list(_products(pairs))
    zero = [
        right
        for right, left, middle in products
        if values.zeros & {right, left, *([middle] if middle else [])}
    ]
    if not zero:
        return
    inside = sum(2 + (middle is not None) for _, _, middle in products)
    if len(zero) == len(products) and inside == tensors:
        text = "all of its low-rank products are zero: it changes nothing, as if saved untrained"
        found.add("no-op", "error", text)
    else:
        modules = [name.rpartition(".lora_")[0] for name in zero]
        text = _several(modules, f"of {len(products)} modules are not changed: a factor is zero")
        found.add("partial-no-op", "held", text)


def _several(items: list[str], words: str) -> str:
    return f"{len(items)} {words} ({items[0]}{', ...' if len(items) > 1 else ''})"
