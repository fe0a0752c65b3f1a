"""What an implementation must be able to do: one small Protocol a kind.

Nothing here imports torch; tensors and models appear in annotations only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from pydantic import BaseModel

    from adapterhub.manifest import BaseRecord, Manifest, Version


class Task(Protocol):
    """One bar of progress."""

    def advance(self, amount: float = 1, note: str = "") -> None:
        """Move on by `amount`; `note` replaces the text at the end of the bar."""


class Progress(Protocol):
    """How a pipeline tells what it is doing; the command line draws it on stderr."""

    def task(self, description: str, total: float | None) -> AbstractContextManager[Task]:
        """A bar that ends with the block. `total` is None where it is not known."""

    def note(self, message: str) -> None:
        """One line for the user."""

    def warn(self, message: str) -> None:
        """One line that the user should act on."""


class Method(Protocol):
    """Attaches trainable parameters to a frozen base."""

    def attach(
        self, model: torch.nn.Module, options: BaseModel, *, prepared: bool
    ) -> torch.nn.Module:
        """Return the model with the adapter in it and only its parameters trainable.

        `prepared` says that a quantizer has made the base ready for training. Raise
        AdzError when a target matches no module.
        """

    def save(self, model: torch.nn.Module, directory: Path) -> None:
        """Write `adapter_model.safetensors` and `adapter_config.json` into `directory`, byte
        for byte reproducible. No other file of an adapter is stored."""

    def load(self, model: torch.nn.Module, directory: Path) -> torch.nn.Module:
        """Return the base `model` with the stored adapter in it, for inference.

        Where the descriptor says `mergeable`, the result has `merge_and_unload()`, which
        returns the base with the adapter folded into its weights.
        """


class Quantizer(Protocol):
    """Holds the frozen base in fewer bits while an adapter is trained."""

    def load_arguments(self, options: BaseModel) -> dict[str, Any]:
        """Keyword arguments for `from_pretrained`, such as `quantization_config`."""

    def prepare(self, model: torch.nn.Module) -> torch.nn.Module:
        """Make the loaded model ready for training."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row, as every format yields it.

    Either `messages` (a chat whose last message is the assistant's) or `prompt` and
    `completion`; plain text has an empty prompt.
    """

    prompt: str = ""
    completion: str = ""
    messages: tuple[Mapping[str, str], ...] = ()


class Format(Protocol):
    """Reads rows of one layout."""

    def matches(self, row: Mapping[str, Any]) -> bool:
        """Whether a row looks like this format (its columns and their types)."""

    def example(self, row: Mapping[str, Any]) -> Example:
        """Read a row; raise ValueError that says what is wrong with it."""


class Objective(Protocol):
    """Builds the trainer of a run."""

    def trainer(self, run: Any) -> Any:
        """Return a `transformers.Trainer` for `adapterhub.train.run.Run`."""


class Metric(Protocol):
    """Scores one answer."""

    def __call__(self, answer: str, reference: str) -> float:
        """A number, 0 to 1 for the metrics that we ship."""


@dataclass(frozen=True, slots=True)
class Factors:
    """One module of one adapter: delta W = scale * B @ A.

    a: (r, n) and b: (m, r), float32 on the CPU; scale is alpha / r, or alpha / sqrt(r) for
    rsLoRA. A module that an adapter lacks has r = 0.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float


class Coordinates(Protocol):
    """The block that an elementwise rule works on, and what it may ask about the whole."""

    def threshold(self, density: float) -> torch.Tensor:
        """(n,) float32: for each adapter the magnitude of the k-th largest element of the WHOLE
        module, not of this block, where k = max(1, int(density * elements)). Keep what is at
        least as large: equal magnitudes stay together."""

    def uniform(self, adapter: int) -> torch.Tensor:
        """Numbers in [0, 1) of the block's shape, from a counter-based generator keyed by
        seed, module, adapter and position: the same whatever the blocks or workers."""


class MergeRule(Protocol):
    """Combines the adapters of one module, in whatever coordinates the space gives."""

    def __call__(
        self,
        deltas: torch.Tensor,
        weights: torch.Tensor,
        coordinates: Coordinates,
        options: Mapping[str, Any],
    ) -> torch.Tensor:
        """deltas: (n, rows, cols) float32, unweighted; weights: (n,). Returns (rows, cols).

        options: the parameters that the descriptor names, and the fields of its `config`.
        """


@dataclass(frozen=True, slots=True)
class MergedModule:
    """A merged module: delta W = b @ a.

    a: (k, n) and b: (m, k), float32, k at most the rank that was asked for. `error` and `norm`
    are Frobenius norms: of what the compression lost, and of the rule's uncompressed result.
    """

    a: torch.Tensor
    b: torch.Tensor
    error: float
    norm: float


class MergeSpace(Protocol):
    """Runs a rule on one module."""

    def __call__(
        self,
        operands: Sequence[Factors],
        weights: torch.Tensor,
        rule: MergeRule,
        options: Mapping[str, Any],
        *,
        rank: int,
        seed: int,
        module: str,
    ) -> MergedModule:
        """Merge the operands of `module` into at most `rank`.

        Every operand has the same (m, n), and at least one has r > 0. Memory is bounded by this
        one module. It is called from several threads at once, and the same arguments give the
        same bits.
        """


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What `adz serve` was asked for. `extra` goes to the engine's own command line.

    The engine calls `ready` once, with the URL of its API, when it answers requests.
    """

    base: str
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    max_rank: int | None = None
    max_resident: int = 8
    max_context: int | None = None
    dtype: str = "auto"
    extra: tuple[str, ...] = ()
    ready: Callable[[str], None] = field(default=lambda url: None)


class Engine(Protocol):
    """Serves a base and its adapters over the OpenAI API."""

    def serve(self, settings: ServeSettings, progress: Progress) -> int:
        """Serve until terminated; return the exit code."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One adapter in a list; the facts are those of its latest version.

    versions: how many are live. aliases: alias -> version. base: the recorded name, a hint.
    size: of the payload in bytes. created: UTC, ISO 8601.
    """

    name: str
    versions: int
    latest: int
    aliases: Mapping[str, int]
    method: str
    made_by: str
    rank: int | None
    base: str | None
    size: int
    created: str


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One line of a name's history. `time` is UTC, ISO 8601."""

    time: str
    actor: str
    action: Literal["commit", "tag", "untag", "rollback", "remove", "restore"]
    name: str
    version: int | None
    alias: str | None = None
    previous: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `fsck` found wrong: which object, which versions suffer, and how."""

    subject: str
    problem: str
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What `gc` removed. `size` is in bytes."""

    blobs: int
    views: int
    size: int
    kept: Mapping[str, int] = field(default_factory=dict)


class Registry(Protocol):
    """Keeps bases and adapter versions. Every method raises AdzError for a user's mistake.

    Versions are immutable; `commit` is atomic: after a crash a version is there whole or not
    at all.
    """

    def add_base(self, record: BaseRecord) -> None:
        """Record a base; a name that is taken by other digests or by an adapter is refused."""

    def base(self, name: str) -> BaseRecord:
        """The base of that name."""

    def bases(self) -> list[BaseRecord]:
        """All bases by name."""

    def remove_base(self, name: str) -> None:
        """Forget a base; refused while a live version needs it."""

    def commit(self, manifest: Manifest, payload: Path, artifacts: Path | None = None) -> Version:
        """Store the files below `payload` (and `artifacts`) as the next version of
        `manifest.name`. The gates run first, on every file."""

    def resolve(self, reference: str) -> Version:
        """The version that a reference means now; unknown names offer the nearest."""

    def names(self) -> list[str]:
        """Every adapter name with a live version."""

    def versions(self, name: str | None = None) -> list[Version]:
        """Live versions of one name or of all, by name and number."""

    def listing(
        self, *, base: str | None = None, method: str | None = None, alias: str | None = None
    ) -> list[Listing]:
        """One line for each name, by name: of those whose latest version has this base or
        method, and that have this alias. Reads no manifest."""

    def path(self, version: Version) -> Path:
        """A plain directory that PEFT and vLLM open, verified against the manifest. It is
        named by the digest and never changes."""

    def artifacts(self, version: Version, directory: Path) -> None:
        """Write the version's artifacts (metrics, curve, recipe) into `directory`."""

    def tag(self, reference: str, alias: str) -> Version:
        """Point `alias` at the version of `reference`."""

    def rollback(self, name: str, alias: str) -> Version:
        """Point `alias` at the version before the last move."""

    def untag(self, name: str, alias: str) -> None:
        """Remove an alias; its history stays."""

    def log(self, name: str) -> list[LogEntry]:
        """The whole history of a name, oldest first."""

    def attest(self, version: Version, kind: str, body: Mapping[str, Any]) -> None:
        """Append a result (an evaluation, a check) to a version."""

    def attestations(self, version: Version, kind: str | None = None) -> list[Mapping[str, Any]]:
        """What was attested, oldest first; each has `kind`, `time` and `body`."""

    def remove(self, reference: str) -> list[Version]:
        """Remove one version (`name@3`) or all of a name; numbers are never reused."""

    def collect(self, *, dry_run: bool = False, grace_seconds: float = 3600) -> CollectReport:
        """Delete what no live version needs and what is older than the grace period."""

    def check(self) -> Iterator[Finding]:
        """Verify every blob, manifest and pointer (fsck)."""
