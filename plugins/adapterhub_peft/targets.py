"""Which modules a pattern means, and what was probably meant where it means none.

PEFT takes `["q_proj", "typo_proj"]` in silence as long as one of them matches.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Any

from adapterhub.errors import usage_error

ALL_LINEAR = "all-linear"


def check_targets(model: Any, targets: str | list[str], option: str) -> None:
    """Raise AdzError when one of the patterns matches no module of `model`.

    A text is a regular expression over a module's whole name; an entry of a list is a name or
    the end of one. These are PEFT's rules.
    """
    names = [name for name, module in model.named_modules() if name and _is_leaf(module)]
    if targets == ALL_LINEAR:
        return
    if isinstance(targets, str):
        try:
            matched = any(re.fullmatch(targets, name) for name in names)
        except re.error as error:
            raise usage_error(f"{option}: {targets!r} is no regular expression: {error}") from error
        if not matched:
            raise _no_match(model, targets, names, option)
        return
    if not targets:
        raise usage_error(f"{option} is an empty list", f"use {ALL_LINEAR} for all linear layers")
    for target in targets:
        if not any(name == target or name.endswith("." + target) for name in names):
            raise _no_match(model, target, names, option)


def _is_leaf(module: Any) -> bool:
    return next(module.children(), None) is None and any(True for _ in module.parameters(False))


def _no_match(model: Any, target: str, names: list[str], option: str) -> Exception:
    ends = sorted({name.rsplit(".", 1)[-1] for name in names})
    near = get_close_matches(target.rsplit(".", 1)[-1], ends, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(ends)}"
    architecture = type(model).__name__
    return usage_error(f"{option}: {target!r} matches no module of {architecture}", hint)
