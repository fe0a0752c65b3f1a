"""The modules of a loaded base by name and size, without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BaseModule:
    """One module of a base.

    name: its whole one. linear: whether it is a linear layer of any kind. size: (in, out) of a
    plain one, torch's Linear or transformers' Conv1D; else None. matrices: what of it is named
    where it is not adapted, such as `q_proj`.
    """

    name: str
    linear: bool
    size: tuple[int, int] | None
    matrices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The modules of a base, all but the outermost, in its own order.

    output: the name of the layer that makes the logits. stacked: some parameter holds the
    matrices of several layers in one, as fused experts do.
    """

    modules: tuple[BaseModule, ...]
    output: str | None
    stacked: bool
