"""What is wanted: how it is made, from which versions, and the identity of the result.

Equal wishes have one key, whatever order or alias they were written with: it is over the
digests of the versions that the names mean now, the options, and the versions of the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import adapterhub
from adapterhub import specs
from adapterhub.environment import environment
from adapterhub.errors import AdzError, usage_error
from adapterhub.expression import Expression
from adapterhub.manifest import Version, canonical_json, sha256_of
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Registry
from adapterhub.reference import DERIVED, derived_name

_LIBRARIES = ("numpy", "peft", "safetensors", "torch", "transformers")
LARGEST_RANK = 512
"""For whoever pads no adapter: the highest that a merge makes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """`recipe` is that of `adz merge` or `adz convert`, its references with their numbers.

    most_rank: the result's rank at most, where the recipe does not say it.
    """

    kind: Literal["merge", "convert"]
    recipe: Mapping[str, Any]
    most_rank: int
    key: str

    @property
    def name(self) -> str:
        """The result's name in the registry."""
        return derived_name(self.key)

    @property
    def text(self) -> str:
        """What is made of what, for messages."""
        if self.kind == "convert":
            return f"{self.recipe['adapter']} as a LoRA"
        return f"the merge of {' and '.join(self.recipe['adapters'])}"


def wanted_merge(expression: Expression, versions: Mapping[str, Version], most_rank: int) -> Wanted:
    """The merge that an expression means. versions: of each of its references.

    Raises a usage error for an unknown rule, and for a version that is named twice.
    """
    recipe = expression.recipe()
    pairs = [
        (versions[reference], weight)
        for reference, weight in zip(recipe["adapters"], recipe["weights"], strict=True)
    ]
    # A random rule draws by the operands' places.
    pairs.sort(key=lambda pair: (pair[0].name, pair[0].number))
    references = [version.reference for version, _ in pairs]
    twice = next((r for r in references if references.count(r) > 1), None)
    if twice:
        raise usage_error(f"{twice} is named twice", "name it once, with the sum of its weights")
    recipe |= {
        "rule": recipe.get("rule", "linear"),
        "adapters": references,
        "weights": [weight for _, weight in pairs],
    }
    facts = {**recipe, "adapters": [version.digest for version, _ in pairs], "most_rank": most_rank}
    return Wanted("merge", recipe, most_rank, _key("merge", facts, recipe["rule"]))


def wanted_conversion(version: Version, most_rank: int) -> Wanted:
    """`version` as a LoRA."""
    facts = {"adapter": version.digest, "most_rank": most_rank}
    recipe = {"adapter": version.reference}
    return Wanted("convert", recipe, most_rank, _key("convert", facts, None))


def find(registry: Registry, wanted: Wanted) -> Version | None:
    """The version that was made for `wanted`, if it is there."""
    try:
        version = registry.resolve(wanted.name)
    except AdzError as error:
        if error.exit_code != usage_error("").exit_code:
            raise
        return None
    return version if is_result(version, wanted) else None


def is_result(version: Version, wanted: Wanted) -> bool:
    """Whether `version` was made for just this: a name holds a part of the key only."""
    return version.manifest.metrics.get(DERIVED) == wanted.key


def is_derived(version: Version) -> bool:
    """Whether a request made it."""
    return version.name.startswith(f"{DERIVED}/")


def _key(kind: str, facts: Mapping[str, Any], rule: str | None) -> str:
    value = {"kind": kind, "made_with": _made_with(rule), **facts}
    return sha256_of(canonical_json(value)).removeprefix("sha256:")


@lru_cache(maxsize=64)
def _made_with(rule: str | None) -> dict[str, str]:
    """What the bytes depend on beside the inputs."""
    components = [load_plugins().get(specs.MergeRule, rule)] if rule else []
    return environment(_LIBRARIES, *components) | {"adapterhub": adapterhub.__version__}
