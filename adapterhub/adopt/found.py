"""What was found: an adapter, its base, what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from adapterhub.manifest import Manifest

Level = Literal["error", "held", "note"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something about an adapter that who imports it should know.

    level: an `error` cannot be imported; what is `held` is imported only when it is named; a
    `note` does not stop it.
    """

    kind: str
    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class BaseGuess:
    """Which base an adapter was made for, as far as names, shapes and its hint tell.

    name: in the registry, or the one proposed for a base that was found beside it; None where
    none fits or where it is open. certainty: `only` one fits, `hint`: several fit and the
    configuration names one, `given` by the user, `recorded` by its digests in an export, `open`:
    several fit, `none` fits.
    fitting: the names of all that fit. hint: base_model_name_or_path.
    """

    name: str | None
    certainty: Literal["only", "hint", "given", "recorded", "open", "none"]
    fitting: tuple[str, ...] = ()
    hint: str | None = None


@dataclass(slots=True)
class Found:
    """One adapter directory. size: of its weights, in bytes. step: of a Trainer's checkpoint.
    digests: of the files that would be stored, by name; tensors: one over all tensors.
    exported: the manifest that 'adz export' wrote beside it."""

    directory: Path
    name: str = ""
    method: str | None = None
    rank: int | None = None
    modules: int | None = None
    parameters: int | None = None
    size: int = 0
    step: int | None = None
    base: BaseGuess = BaseGuess(None, "none")
    faults: list[Fault] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    tensors: str | None = None
    exported: Manifest | None = None

    @property
    def level(self) -> Literal["error", "held", "clean"]:
        """Whether it can be imported, and whether it is unless somebody says otherwise."""
        levels = {fault.level for fault in self.faults}
        return "error" if "error" in levels else "held" if "held" in levels else "clean"

    def add(self, kind: str, level: Level, text: str) -> None:
        """Note a fault."""
        self.faults.append(Fault(kind, level, text))

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "directory": str(self.directory),
            "name": self.name,
            "status": self.level,
            "method": self.method,
            "rank": self.rank,
            "modules": self.modules,
            "parameters": self.parameters,
            "size": self.size,
            "step": self.step,
            "base": {
                "name": self.base.name,
                "certainty": self.base.certainty,
                "fitting": list(self.base.fitting),
                "hint": self.base.hint,
            },
            "faults": [
                {"kind": fault.kind, "level": fault.level, "text": fault.text}
                for fault in self.faults
            ],
        }


@dataclass(frozen=True, slots=True)
class FoundBase:
    """A base below the folders that the registry does not know."""

    directory: Path
    name: str
    architecture: str
    size: int

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "directory": str(self.directory),
            "name": self.name,
            "architecture": self.architecture,
            "size": self.size,
        }


@dataclass(frozen=True, slots=True)
class Survey:
    """All that was found below the folders. seconds: how long it took."""

    adapters: list[Found]
    bases: list[FoundBase]
    problems: list[str]
    folders: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "adapters": [found.as_dict() for found in self.adapters],
            "bases": [base.as_dict() for base in self.bases],
            "problems": self.problems,
            "folders": self.folders,
            "seconds": round(self.seconds, 3),
        }
