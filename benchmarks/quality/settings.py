"""What is searched for TRL and then taken over: the learning rate, its schedule, and which layers
are adapted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

_ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
SCHEDULES = ("linear", "constant", "cosine")
LAYERS = ("all-linear", "attention")


@dataclass(frozen=True)
class Setting:
    """What both train with. layers: all linear ones, or those of the attention alone."""

    lr: float
    schedule: str = "linear"
    layers: str = "all-linear"

    @property
    def label(self) -> str:
        """For names of folders and lines of output."""
        known = "" if self == Setting(self.lr) else f"-{self.schedule}-{self.layers}"
        return f"{self.lr:g}{known}"

    def for_trl(self) -> dict[str, Any]:
        """By the names of benchmarks/training/run.py."""
        schedule = "constant_with_warmup" if self.schedule == "constant" else self.schedule
        layers = _ATTENTION if self.layers == "attention" else self.layers
        return {"lr": self.lr, "schedule": schedule, "targets": layers}

    def for_adz(self) -> tuple[str, ...]:
        """Options of `adz train` beside the rate; those that are its defaults are left out."""
        schedule = () if self.schedule == "linear" else (f"training.schedule={self.schedule}",)
        if self.layers == "all-linear":
            return schedule
        return (*schedule, f"method.targets=[{','.join(_ATTENTION)}]")


@dataclass(frozen=True)
class Space:
    """What is tried; a single value of each is taken as it is. factors: of the first guess."""

    factors: tuple[float, ...]
    schedules: tuple[str, ...] = ("linear",)
    layers: tuple[str, ...] = ("all-linear",)

    def text(self, rows: int) -> str:
        """A sentence or two on what was searched, on so many rows."""
        parts = []
        if len(self.factors) > 1:
            factors = ", ".join(f"{factor:g}" for factor in self.factors)
            parts.append(f"the learning rate is the one of {factors} times a first guess")
        if len(self.schedules) > 1:
            parts.append(f"the schedule the one of {', '.join(self.schedules)}")
        if len(self.layers) > 1:
            parts.append(f"the adapted layers those of {' or '.join(self.layers)}")
        if not parts:
            return "They were not searched: a first guess of the rate, linear, all linear layers."
        rest = "" if len(parts) == 3 else " The rest was not searched."
        return (
            f"Of these, {', '.join(parts)} that serves TRL best on {rows} other rows, one after "
            f"the other.{rest}"
        )


def search(
    guess: float, space: Space, score: Callable[[Sequence[Setting]], Sequence[float]]
) -> Setting:
    """The best setting, one part after the other: the rate, then the schedule, then the layers.
    `score` gets all that may be tried at once, and gives higher numbers to better ones."""
    best = Setting(guess * space.factors[0], space.schedules[0], space.layers[0])
    parts: dict[str, Sequence[Any]] = {
        "lr": [guess * factor for factor in space.factors],
        "schedule": space.schedules,
        "layers": space.layers,
    }
    for part, values in parts.items():
        if len(values) > 1:
            tried = [replace(best, **{part: value}) for value in values]
            scores = score(tried)
            best = tried[max(range(len(tried)), key=lambda place: scores[place])]
    return best
