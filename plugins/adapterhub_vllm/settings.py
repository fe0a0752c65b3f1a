"""What `adz serve` tells the vLLM that it starts: one environment variable.

Where it is missing, everything of ours inside vLLM stays inert.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field

from adapterhub.protocols import Derivations
from adapterhub.serve.doors.settings import DoorSettings

VARIABLE = "ADAPTERHUB_VLLM"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """`base` is a name in the registry, `max_rank` the rank that slots are padded to, `room` the
    number of adapters in memory, `doors` what stands before the server, `data_parallel` the
    number of engines, `derivations` what it may make for requests, `stall_seconds` how long
    requests may wait for a step of the engine."""

    base: str
    max_rank: int
    room: int
    doors: DoorSettings
    data_parallel: int = 1
    derivations: Derivations = field(default_factory=Derivations)
    stall_seconds: float = 0.0

    def to_environment(self) -> dict[str, str]:
        """The variable for the child's environment."""
        return {VARIABLE: json.dumps(asdict(self))}


def read_settings() -> ServerSettings | None:
    """The settings of this process, None where `adz serve` did not start it."""
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    values = json.loads(text)
    doors = DoorSettings.from_values(values["doors"])
    derivations = Derivations(**values["derivations"])
    return ServerSettings(**{**values, "doors": doors, "derivations": derivations})
