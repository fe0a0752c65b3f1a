"""The base with the source's adapter and with the result's, and what they answer."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from adapterhub import specs
from adapterhub.convert.logits import compare_logits
from adapterhub.convert.result import LogitCheck
from adapterhub.convert.source import Source, base_changing_init
from adapterhub.errors import AdzError
from adapterhub.manifest import BaseRecord
from adapterhub.models import load_base, load_tokenizer, share_weights
from adapterhub.plugins import load_plugins
from adapterhub.reference_rows import reference_rows

if TYPE_CHECKING:
    from adapterhub.protocols import ConvertibleMethod, WeightUpdate


@dataclass(frozen=True, slots=True)
class Models:
    """The base in float32, once, and the adapter over the same weights."""

    record: BaseRecord
    base: Any
    adapted: Any
    method: Any

    def updates(self) -> dict[str, WeightUpdate]:
        """What the adapter adds to each weight."""
        convertible = cast("ConvertibleMethod", self.method)
        return dict(convertible.updates(self.base, self.adapted))

    def check(self, source: Source, result: Path, data: Path | None) -> LogitCheck:
        """The logits of the adapter beside those of the LoRA in `result`."""
        found = reference_rows(source.version, data, load_tokenizer(self.record))
        plain = _open(self.method, share_weights(self.base), result, source.label)
        return LogitCheck(
            found.source,
            compare_logits(self.adapted, plain, found.rows),
            compare_logits(self.adapted, self.base, found.rows),
        )


def component_of(source: Source) -> specs.Method:
    """The method that opens the source. What we have no method for PEFT opens all the same:
    all of its directories are opened alike."""
    methods = load_plugins().components(specs.Method)
    ours = methods.get(source.method)
    if ours is not None:
        if not ours.convertible:
            raise AdzError(f"{source.label}: {ours.name} cannot be converted", "serve it as it is")
        return ours
    return next(m for m in methods.values() if m.storage == "peft" and m.convertible)


def load_models(source: Source, record: BaseRecord) -> Models:
    """Load the base and put the adapter over it. Raises AdzError where one of them fails."""
    method = load_plugins().load_implementation(component_of(source))()
    base: Any = load_base(record, dtype=torch.float32)
    # PEFT takes such a beginning out of the weights in place, so they are not shared.
    changing = base_changing_init(source.config) is not None
    own = copy.deepcopy(base) if changing else share_weights(base)
    return Models(record, base, _open(method, own, source.directory, source.label), method)


def _open(method: Any, model: Any, directory: Path, label: str) -> Any:
    try:
        return method.load(model, directory).eval()
    except AdzError:
        raise
    # PEFT refuses what does not fit in as many ways as it has methods.
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise AdzError(
            f"{label} cannot be loaded: {reason}", "is it an adapter of this base?"
        ) from error
