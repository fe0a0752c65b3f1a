"""Tensor names as PEFT writes them, and what other programs made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from adapterhub.bases.modules import PREFIX, AdapterKey, split_key

# A state_dict instead of PEFT's own saving: the adapter's name stands in every tensor's.
_NAMED = re.compile(
    r"(?P<parameter>lora_(?:A|B|E|embedding_A|embedding_B|magnitude_vector))"
    r"\.(?!weight\b|bias\b)(?P<adapter>[^.]+)(?P<rest>\.weight|\.bias|)"
)

# Other methods have parameters of their own there, such as lora_A.Xd.
_LOW_RANK = ("LORA", "ADALORA")


@dataclass(frozen=True, slots=True)
class Names:
    """An adapter's tensors taken apart. keys: by the name in the file; what the modules of a
    method share, such as VeRA's projections, has none. problem: what is wrong with the names,
    in words; the keys are then those that were meant."""

    keys: Mapping[str, AdapterKey]
    problem: str | None


def take_apart(names: Iterable[str], kind: object = "LORA") -> Names:
    """Every name's module and parameter. PEFT and vLLM look a wrong name up in vain, and most
    of them without a word.

    kind: peft_type of the configuration.
    """
    keys: dict[str, AdapterKey] = {}
    problems: dict[str, int] = {}
    count = 0
    for name in names:
        count += 1
        if _is_shared(name):
            continue
        meant, problem = _meant(name, may_be_named=kind in _LOW_RANK)
        if problem:
            problems[problem] = problems.get(problem, 0) + 1
        key = split_key(meant)
        if key is not None:
            keys[name] = key
    if not problems:
        return Names(keys, None)
    words, wrong = max(problems.items(), key=lambda item: item[1])
    return Names(keys, f"{wrong} of {count} tensors {words}")


def without_doubled_model(keys: Mapping[str, AdapterKey]) -> dict[str, AdapterKey] | None:
    """The keys with `model.` once where it stands twice at the beginning; None where it does
    nowhere. A base may be built so: who asks compares with the base first."""
    if not any(key.module.startswith("model.model.") for key in keys.values()):
        return None
    return {
        name: AdapterKey(_once(key.module), key.parameter, key.added) for name, key in keys.items()
    }


def _once(module: str) -> str:
    while module.startswith("model.model."):
        module = module.removeprefix("model.")
    return module


def _is_shared(name: str) -> bool:
    if name.startswith(PREFIX) or not name.startswith("base_model."):
        return False
    key = split_key(PREFIX + name.removeprefix("base_model."))
    return key is not None and key.added and not key.module


def _meant(name: str, *, may_be_named: bool) -> tuple[str, str | None]:
    """The name that PEFT would have written, and what is wrong with this one."""
    problem = None
    parts = name.split(".")
    if "_orig_mod" in parts:
        problem = "carry the _orig_mod of torch.compile in their names"
        parts = [part for part in parts if part != "_orig_mod"]
    if "module" in (parts[0], *parts[2:3]) and parts[0] in ("module", "base_model"):
        problem = problem or "carry the module. of DataParallel in their names"
        parts.remove("module")
    text = ".".join(parts)
    if not text.startswith(PREFIX):
        problem = problem or f"are not below {PREFIX[:-1]}"
        text = PREFIX + text.removeprefix("base_model.")
    while text.startswith(PREFIX * 2):
        problem = problem or f"are below {PREFIX * 2}"[:-1]
        text = text.removeprefix(PREFIX)
    named = _NAMED.search(text) if may_be_named else None
    if named:
        problem = problem or f"carry the adapter's name ({named['adapter']}) in theirs"
        text = text[: named.start()] + named["parameter"] + named["rest"]
    return text, problem
