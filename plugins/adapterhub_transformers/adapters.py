"""The adapters in memory, and how the rows of each run."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from adapterhub.generate import stop_tokens
from adapterhub.manifest import BaseRecord, Version
from adapterhub.models import load_adapter, share_weights
from adapterhub.protocols import Registry
from adapterhub.serve.hold import Hold
from adapterhub.serve.metrics import Residency
from adapterhub.serve.removed import removed_digests
from adapterhub_transformers.lane import ContinuousLane, Lane, StaticLane
from adapterhub_transformers.mixed_lora import Columns, MixedLora, plain_factors
from adapterhub_transformers.probe import linear_layers, why_not_continuous


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """Where the rows of a version, called `reference`, run: in the lane of all with columns of
    their own or a model that reads the prompt, or in a lane of their own."""

    reference: str
    lane: Lane
    columns: Columns | None = None
    prompt_model: Any = None


class Adapters:
    """Holds the base and at most `max_resident` adapters; the least recently used go first.

    context: the longest row, in tokens. Used from the thread that runs the model, and the thread
    that makes it.
    """

    def __init__(
        self,
        registry: Registry,
        base: BaseRecord,
        model: Any,
        tokenizer: Any,
        *,
        max_resident: int,
        context: int,
        residency: Residency | None = None,
    ) -> None:
        self._registry = registry
        self._base = base
        self._model = model
        self._tokenizer = tokenizer
        self._max_resident = max_resident
        self._residency = residency or Residency()
        self._resident: OrderedDict[str, Loaded] = OrderedDict()
        self._hold = Hold("transformers")
        # The registry's revision in which nothing that is held was removed.
        self._looked_at = -1
        self.stop_ids = stop_tokens(model, tokenizer)
        self.why_static = why_not_continuous(model, context)
        self._mixed: MixedLora | None = None
        # The hooks of plain LoRA are not for the models that other methods are put on.
        self._common: Lane = self._lane_of(model)
        if self.why_static is None:
            hooked = share_weights(model)
            self._mixed = MixedLora.over(hooked, linear_layers(hooked))
            self._common = ContinuousLane(hooked, self._mixed)
        self._base_loaded = Loaded(base.name, self._common)

    @property
    def lanes(self) -> Sequence[Lane]:
        """Every lane, that of all first."""
        own = [loaded.lane for loaded in self._resident.values()]
        return [self._common, *(lane for lane in own if lane is not self._common)]

    def get(self, version: Version | None, in_use: Callable[[str], bool]) -> Loaded | None:
        """How the rows of a version (None: the base) run. None where no adapter may go to make
        place for it: each has rows that run. Raises what loading raises."""
        if version is None:
            return self._base_loaded
        self._hold.add(self._registry, version)
        loaded = self._resident.get(version.digest)
        if loaded is None:
            if not self._make_place(in_use):
                return None
            begun = time.monotonic()
            self._registry.admit(version, self._base)
            loaded = self._load(version)
            self._residency.loaded(version.reference, time.monotonic() - begun)
            self._resident[version.digest] = loaded
        self._resident.move_to_end(version.digest)
        return loaded

    def _make_place(self, in_use: Callable[[str], bool]) -> bool:
        while len(self._resident) >= self._max_resident:
            idle = next((digest for digest in self._resident if not in_use(digest)), None)
            if idle is None:
                return False
            self._let_go(idle)
        return True

    def let_go_of_removed(self, in_use: Callable[[str], bool]) -> None:
        """Free what was removed from the registry and has no rows that run."""
        revision = self._registry.revision()
        if revision == self._looked_at:
            return
        held = [(_name_of(loaded), digest) for digest, loaded in self._resident.items()]
        gone = removed_digests(self._registry, held)
        for digest in gone:
            if not in_use(digest):
                self._let_go(digest)
        self._hold.drop(gone)
        if not any(map(in_use, gone)):
            self._looked_at = revision

    def _let_go(self, digest: str) -> None:
        loaded = self._resident.pop(digest)
        self._residency.evicted(loaded.reference)
        if loaded.columns is not None and self._mixed is not None:
            self._mixed.remove(loaded.columns)

    def _load(self, version: Version) -> Loaded:
        name = version.reference
        model = load_adapter(self._model, version, self._registry.path(version))
        if self._mixed is None:
            return Loaded(name, self._lane_of(model))
        factors = plain_factors(model)
        if factors is not None and self._mixed.fits(factors):
            return Loaded(name, self._common, columns=self._mixed.add(factors))
        if _is_soft_prompt(model):
            return Loaded(name, self._common, prompt_model=model)
        return Loaded(name, self._lane_of(model))

    def _lane_of(self, model: Any) -> Lane:
        if self.why_static is None and (model is self._model or _is_token_wise(model)):
            return ContinuousLane(model)
        return StaticLane(model, self._tokenizer, self.stop_ids)


def _name_of(loaded: Loaded) -> str:
    return loaded.reference.partition("@")[0]


def _is_soft_prompt(model: Any) -> bool:
    """Whether an adapter changes what is before the prompt, and nothing behind it."""
    config = getattr(model, "active_peft_config", None)
    return config is not None and config.peft_type in ("PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")


def _is_token_wise(model: Any) -> bool:
    """Whether PEFT's model of an adapter does with a token what it would do with it alone."""
    from peft import PeftModel

    if not isinstance(model, PeftModel):
        return False
    config = model.active_peft_config
    return not (
        config.is_prompt_learning
        or config.peft_type in ("ADAPTION_PROMPT", "CARTRIDGE", "POLY", "XLORA")
        or getattr(config, "alora_invocation_tokens", None)
    )
