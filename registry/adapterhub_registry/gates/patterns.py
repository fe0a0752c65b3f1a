"""Regular expressions in an adapter's configuration.

PEFT hands them to `re`, where a few characters can take hours. Here they are matched with
google-re2 only, which takes linear time, and refused when `re` could take too long.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from re import _constants as constants  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import re2

MAX_PATTERN = 16_384
# The ways to match, as a power of two: four `.*` and a little more. Published patterns stay
# below it; at it `re` takes a fraction of a second for a module's name.
MAX_AMBIGUITY = 30.0
# How often an open-ended repeat may repeat: the length of a long module name.
_OPEN = 128

_REPEATS = (constants.MAX_REPEAT, constants.MIN_REPEAT, constants.POSSESSIVE_REPEAT)
_ASSERTIONS = (constants.ASSERT, constants.ASSERT_NOT)
_REFERENCES = (constants.GROUPREF, constants.GROUPREF_EXISTS)

Items = Sequence[tuple[Any, Any]]


def check_patterns(config: Mapping[str, Any]) -> str | None:
    """Why a pattern in the configuration is refused, or None."""
    for key, pattern in _patterns(config):
        if len(pattern) > MAX_PATTERN:
            return f"{key} has {len(pattern)} characters, at most {MAX_PATTERN} are read"
        try:
            ambiguity = _ambiguity(parser.parse(pattern))
        # Deep nesting ends in RecursionError, a huge repeat count in OverflowError.
        except (re.error, RecursionError, OverflowError) as error:
            return f"{key} is not a regular expression: {error}"
        if ambiguity > MAX_AMBIGUITY:
            return (
                f"{key} could take forever to match: it has repeats or choices inside repeats, "
                "or too many in a row"
            )
    return None


def matching(target: Any, modules: Iterable[str]) -> list[str]:
    """The modules that PEFT adapts under these `target_modules`."""
    names = list(modules)
    left = set(uncovered(target, names))
    return [name for name in names if name not in left]


def uncovered(target: Any, modules: Iterable[str]) -> list[str]:
    """The modules that PEFT would not adapt under these `target_modules`.

    A text is a regular expression for the whole name; a list holds names or ends of names.
    None, `all-linear` and what google-re2 cannot read (a look-around) say nothing here.
    """
    if isinstance(target, list):
        return [m for m in modules if not any(m == t or m.endswith(f".{t}") for t in target)]
    if not isinstance(target, str) or target == "all-linear":
        return []
    options = re2.Options()
    options.log_errors = False
    try:
        pattern = re2.compile(target, options)
    except re2.error:
        return []
    return [m for m in modules if pattern.fullmatch(m) is None]


def _patterns(config: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key in ("target_modules", "exclude_modules", "feedforward_modules", "layers_pattern"):
        value = config.get(key)
        if isinstance(value, str):
            yield key, value
        # PEFT puts the entries of layers_pattern into an expression.
        elif key == "layers_pattern" and isinstance(value, list):
            yield from ((key, item) for item in value if isinstance(item, str))
    for key in ("rank_pattern", "alpha_pattern"):
        value = config.get(key)
        if isinstance(value, dict):
            yield from ((f"{key}.{name[:40]}", name) for name in value)


def _ambiguity(items: Items) -> float:
    """The logarithm to base 2 of how many ways there may be to match a name: what follows
    each other multiplies, what repeats is raised to a power."""
    total = 0.0
    for operation, argument in items:
        if operation in _REPEATS:
            least, most, body = argument
            most = min(int(most), _OPEN)
            total += math.log2(max(1, most - min(int(least), most) + 1)) + most * _ambiguity(body)
        elif operation is constants.BRANCH:
            branches = argument[1]
            total += max(_ambiguity(branch) for branch in branches)
            total += 0.0 if _are_exclusive(branches) else math.log2(len(branches))
        elif operation is constants.SUBPATTERN:
            total += _ambiguity(argument[3])
        elif operation in _ASSERTIONS:
            total += _ambiguity(argument[1])
        elif operation is constants.ATOMIC_GROUP:
            total += _ambiguity(argument)
        elif operation in _REFERENCES:
            return math.inf
    return total


def _are_exclusive(branches: Sequence[Items]) -> bool:
    """Whether at most one branch can match at a place: literal texts, none the beginning of
    another, as in `q_proj|k_proj`."""
    texts = []
    for branch in branches:
        if any(operation is not constants.LITERAL for operation, _ in branch):
            return False
        texts.append("".join(chr(code) for _, code in branch))
    texts.sort()
    return not any(b.startswith(a) for a, b in itertools.pairwise(texts))
