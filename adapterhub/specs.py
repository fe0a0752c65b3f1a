"""The descriptors that hooks return: what a component is called and what the core decides on.

A descriptor is light: it names its implementation as `package.module:attribute`, which is
imported on first use, so that listing components never imports torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from typing import Literal

Status = Literal["stable", "experimental", "gpu-unproven"]
RowKind = Literal["supervised", "preference", "unpaired_preference", "prompt"]
"""What rows hold: answers, a better and a worse answer, judged answers, or questions alone."""

DEPRECATED = "deprecated"
"""Of a field that will be gone: `field(default=..., metadata={DEPRECATED: {"since": "0.2",
"instead": "another"}})`. A plugin that sets it to something else costs one line."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class Component:
    """What every descriptor has.

    name: what a user types. summary: one line for listings.
    impl: `package.module:attribute`, an implementation of the kind's Protocol.
    config: `package.module:Model`, a pydantic model of the options; it must not import torch.
    requires: modules that must be importable before `impl` is; install_hint: what to
    install when one is not, such as `pip install 'adapterhub[train]'`.
    """

    name: str
    summary: str
    impl: str
    config: str | None = None
    requires: tuple[str, ...] = ()
    install_hint: str = ""
    status: Status = "stable"

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is not a component name ([a-z0-9][a-z0-9_-]*)")
        for target in self._targets():
            if target is not None and not _TARGET.fullmatch(target):
                raise ValueError(f"{self.name}: {target!r} is not 'package.module:attribute'")

    def _targets(self) -> tuple[str | None, ...]:
        return (self.impl, self.config)


@dataclass(frozen=True, kw_only=True)
class Method(Component):
    """A way to adapt a base. `impl` is a `protocols.Method`.

    storage: `peft` when it is saved as a directory that PEFT opens, `own` when only its own
    `load` can, `base` when it trains the base itself and a run's result is a new base.
    convertible: `adz convert` makes a plain LoRA of it, and `impl` is a
    `protocols.ConvertibleMethod` too. vllm: vLLM serves it as it is. quantizers: the quantizers
    that it works with, or None for all; a pair outside is refused with `quantizer_reason`.
    needs_quantizer: it is of no use over a base in plain floats.
    forecast: `package.module:attribute`, a callable: `bases.outline.Layout` and the options -> the
    number of parameters that `attach` would train in each module, by the module's name, or None
    where only `attach` tells. It needs nothing of `requires`, and makes a dry run quick.
    """

    storage: Literal["peft", "own", "base"] = "peft"
    mergeable: bool = False
    convertible: bool = False
    vllm: bool = False
    quantizers: tuple[str, ...] | None = None
    quantizer_reason: str = ""
    needs_quantizer: bool = False
    forecast: str | None = None

    def _targets(self) -> tuple[str | None, ...]:
        return (self.impl, self.config, self.forecast)


@dataclass(frozen=True, kw_only=True)
class Quantizer(Component):
    """A way to hold the base while training. `impl` is a `protocols.Quantizer`.

    methods: those that were seen to train over it; a method that names the quantizers it works
    with knows nothing of one that came later. stored_only: a base that is stored by it is
    trained over, and it quantises none.
    """

    bits: int
    methods: tuple[str, ...] = ()
    stored_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A merge rule as a peer computes it, for `--compat PEER`.

    peer: whose results it reproduces, such as `peft`. The other fields take the place of the
    rule's own of the same name.
    """

    peer: str
    impl: str
    spaces: tuple[str, ...]
    kind: Literal["elementwise", "spectral", "pairwise"] = "elementwise"
    config: str | None = None
    default_rank: str = "max"
    parameters: tuple[str, ...] = ()
    default_density: float = 0.2
    negative_weights: bool = True
    weighted: bool = True


@dataclass(frozen=True, kw_only=True)
class MergeRule(Component):
    """A way to combine adapters. `impl` is a `protocols.MergeRule`.

    kind: elementwise (works on any stack of equally shaped coordinates), spectral (needs
    singular vectors of a whole module) or pairwise (exactly two adapters). An elementwise rule is
    called with blocks of rows, the others once with the whole module.
    spaces: the merge spaces that it runs in, the default first.
    default_rank: `sum`, `max`, or a number as text.
    parameters: the command's options that it reads (`density`, `seed`).
    default_density: the share of the elements kept where `density` is read and not given.
    negative_weights: whether a weight below zero has a meaning.
    weighted: whether weights have a meaning at all; where not, all are 1.
    compat: the rule as peers compute it, one entry a peer.
    """

    kind: Literal["elementwise", "spectral", "pairwise"] = "elementwise"
    spaces: tuple[str, ...]
    default_rank: str = "max"
    parameters: tuple[str, ...] = ()
    default_density: float = 0.2
    negative_weights: bool = True
    weighted: bool = True
    compat: tuple[Variant, ...] = ()

    def as_peer(self, peer: str) -> MergeRule | None:
        """The descriptor of the peer's variant; None where there is none."""
        for variant in self.compat:
            if variant.peer == peer:
                names = (field.name for field in fields(variant) if field.name != "peer")
                return replace(self, **{name: getattr(variant, name) for name in names})
        return None


@dataclass(frozen=True, kw_only=True)
class MergeSpace(Component):
    """Coordinates in which a rule runs. `impl` is a `protocols.MergeSpace`.

    ranks: of a result: `sum` is the sum of the operands' ranks and cannot be compressed,
    `up-to-sum` any up to that, `up-to-full` any up to the module's smaller side; `equal` is the
    operands' own, which must be the same in a module.
    moments: whether it measures by the operands' input moments, which each must have then: errors
    are those of the module's outputs, not of its weights.
    rules: names of rules that run in it too, beside those that name it in their `spaces`.
    """

    ranks: Literal["sum", "up-to-sum", "up-to-full", "equal"] = "up-to-full"
    moments: bool = False
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Objective(Component):
    """What a run optimises. `impl` is a `protocols.Objective`.

    kinds: the kinds of rows that it learns from: "supervised", "preference" (pairs),
    "unpaired_preference" (judged answers), "prompt" (no answer). generates: it learns from
    answers of its own, so that those of the rows, if any, are what its rewards compare with.
    likelihood: True: adz prints the loss of the held-out answers by the token beside the base's;
    False: it does not, because the objective is another, as of most that learn preferences, and
    what the trainer's `held_out()` returns is printed. unavailable: why it cannot be had and
    what to use instead, for a name that people look for.
    """

    kinds: tuple[RowKind, ...] = ("supervised",)
    generates: bool = False
    likelihood: bool = True
    unavailable: str = ""


@dataclass(frozen=True, kw_only=True)
class Engine(Component):
    """Something that answers requests. `impl` is a `protocols.Engine`.

    live: it serves a version that was committed after it started, without a restart.
    priority: among the engines whose requirements are installed the highest is the default.
    limits: `package.module:attribute`, a callable: the mapping in an adapter_config.json and the
    `bases.headers.TensorInfo` of its tensors by name -> one text for each thing that the engine
    would refuse or leave out. It needs nothing of `requires`.
    """

    live: bool = True
    priority: int = 0
    limits: str | None = None

    def _targets(self) -> tuple[str | None, ...]:
        return (self.impl, self.config, self.limits)


@dataclass(frozen=True, kw_only=True)
class Format(Component):
    """A layout of rows in a data set. `impl` is a `protocols.Format`.

    kind: what its rows hold, which an objective asks for.
    """

    kind: RowKind = "supervised"


@dataclass(frozen=True, kw_only=True)
class Registry(Component):
    """Where adapters are kept. `impl` is a callable: home directory -> `protocols.Registry`."""


@dataclass(frozen=True, kw_only=True)
class Remote(Component):
    """Where versions are pushed to and pulled from. `impl` is a callable: URL ->
    `protocols.Remote`.

    schemes: the beginnings of the URLs that it opens, such as `oci` for `oci://host/path`.
    """

    schemes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Metric(Component):
    """A score of one answer against its reference. `impl` is a `protocols.Metric`."""

    higher_is_better: bool = True


@dataclass(frozen=True, kw_only=True)
class Command(Component):
    """A command of `adz`. `impl` is a click command; the summary stands in `adz --help`."""
