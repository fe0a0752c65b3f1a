"""Random work on a registry, and what a registry says as plain values to compare."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from adapterhub.errors import AdzError
from adapterhub.manifest import BaseDigests, BaseLink, BaseRecord, Manifest
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Finding, LogEntry
from adapterhub_registry.store import LocalRegistry

NAMES = ("sql", "team/french", "other")
BASES = ("llama", "qwen")
ALIASES = ("prod", "beta")
# Each kind of change once, in an order in which each has something to do.
EVERYTHING = (
    "base", "commit", "commit", "overtaken", "tag", "tag", "view", "heal", "remove", "restore",
    "remove", "gc", "reopen", "rollback", "attest", "rebuild", "untag", "commit", "remove name",
    "remove base",
)  # fmt: skip
HOLDER = "workload"

# Name -> how often it is done, and what it is.
Steps = dict[str, tuple[int, Callable[[], object]]]


def manifest(name: str) -> Manifest:
    """The manifest of an adapter whose base is unknown."""
    return Manifest(name=name, method="lora", made_by="import", base=BaseLink(status="unknown"))


def base(name: str) -> BaseRecord:
    """The record of a base; its files are never looked at."""
    digests = BaseDigests(weights=f"sha256:{name}", arch="sha256:a", tokenizer="sha256:t")
    return BaseRecord(
        name=name, source=name, path=f"/nowhere/{name}", digests=digests,
        architecture="LlamaForCausalLM", parameters=64, dtype="F32",
        created="2026-01-01T00:00:00Z",
    )  # fmt: skip


def snapshot(registry: LocalRegistry) -> dict[str, Any]:
    """All that a registry acknowledges, as values that JSON keeps."""
    return {
        "versions": [[v.name, v.number, v.digest, sorted(v.aliases)] for v in registry.versions()],
        "log": {
            name: [[e.time, e.actor, e.action, e.version, e.alias, e.previous] for e in entries]
            for name in NAMES
            if (entries := _log(registry, name))
        },
        "bases": [record.name for record in registry.bases()],
        "attested": {
            v.reference: [dict(a) for a in registry.attestations(v)] for v in registry.versions()
        },
        # A push takes one too, which it gives back.
        "leased": [lease.version for lease in registry.leases() if lease.holder == HOLDER],
    }


def wrong(registry: LocalRegistry) -> list[Finding]:
    """What fsck finds, but for the bases, which are made up here."""
    return [f for f in registry.check() if not f.subject.startswith("base ")]


def _log(registry: LocalRegistry, name: str) -> list[LogEntry]:
    try:
        return registry.log(name)
    except AdzError:
        # It was never there.
        return []


class Workload:
    """Does one random thing at a time. The same seed on an equal registry does the same.

    payloads: directories that may be committed.
    """

    def __init__(self, registry: LocalRegistry, payloads: Path, seed: int) -> None:
        self.registry = registry
        # Is told what is done within a step that does several things.
        self.on_part: Callable[[str], None] = lambda what: None
        self._payloads = sorted(payloads.iterdir())
        self._random = random.Random(seed)
        self._turn = 0

    def registries(self) -> list[LocalRegistry]:
        """All that it works on."""
        return [self.registry]

    def snapshot(self) -> dict[str, Any]:
        """All that these acknowledge."""
        return snapshot(self.registry)

    def step(self) -> str:
        """Do something that is not refused; return what it was."""
        steps = self._steps()
        weights = [weight for weight, _ in steps.values()]
        while not self.run(name := self._random.choices(list(steps), weights)[0]):
            pass
        return name

    def run(self, name: str) -> bool:
        """Do one kind of thing; `EVERYTHING` names them all. Returns whether it was not refused,
        which is fine."""
        self._turn += 1
        try:
            self._steps()[name][1]()
        except AdzError as error:
            if error.__cause__ is not None:
                raise
            return False
        return True

    def _steps(self) -> Steps:
        registry, pick = self.registry, self._random.choice
        return {
            "commit": (5, lambda: registry.commit(manifest(pick(NAMES)), pick(self._payloads))),
            "overtaken": (1, self._overtaken),
            "tag": (4, self._tag),
            "rollback": (2, lambda: registry.rollback(*self._alias(moves=2))),
            "untag": (1, lambda: registry.untag(*self._alias(moves=1))),
            "remove": (2, lambda: registry.remove(self._version(aliased=False))),
            "remove name": (1, lambda: registry.remove(pick(registry.names() or NAMES))),
            "restore": (2, self._restore),
            "gc": (2, lambda: registry.collect(grace_seconds=0, retention_seconds=0)),
            "attest": (1, self._attest),
            "base": (1, lambda: registry.add_base(base(pick(BASES)))),
            "remove base": (1, lambda: registry.remove_base(pick(self._bases() or BASES))),
            "view": (2, lambda: registry.path(registry.resolve(self._version()))),
            "rebuild": (1, self._rebuild),
            "heal": (1, self._heal),
            "lease": (1, self._lease),
            "reopen": (1, self._reopen),
        }

    def _version(self, *, aliased: bool = True) -> str:
        versions = self.registry.versions()
        some = [v.reference for v in versions if aliased or not v.aliases]
        return self._random.choice(some or [v.reference for v in versions] or ["sql@1"])

    def _bases(self) -> list[str]:
        return [record.name for record in self.registry.bases()]

    def _overtaken(self) -> None:
        """A commit that another one comes before, after its files were prepared."""
        name, payload = self._random.choice(NAMES), self._random.choice(self._payloads)
        plugins = load_plugins()
        call_event = plugins.call_event

        def first(event: str, **arguments: Any) -> None:
            with mock.patch.object(plugins, "call_event", call_event):
                self.registry.commit(manifest(name), payload)
            self.on_part("commit")

        with mock.patch.object(plugins, "call_event", first):
            self.registry.commit(manifest(name), payload)

    def _tag(self) -> None:
        """Rather move an alias than make a new one."""
        versions = self.registry.versions()
        known = [alias for version in versions for alias in version.aliases]
        alias = self._random.choice([*known, *known, *ALIASES])
        tagged = {version.name for version in versions if alias in version.aliases}
        others = [v.reference for v in versions if v.name in tagged and alias not in v.aliases]
        self.registry.tag(self._random.choice(others or [self._version()]), alias)

    def _alias(self, moves: int) -> tuple[str, str]:
        """A name and its alias that was tagged so often, if there is one."""
        found = [
            (version.name, alias)
            for version in self.registry.versions()
            for alias in version.aliases
            if [e.action == "tag" and e.alias == alias for e in _log(self.registry, version.name)]
            .count(True) >= moves
        ]  # fmt: skip
        return self._random.choice(found or [(NAMES[0], ALIASES[0])])

    def _restore(self) -> None:
        removed = [
            f"{name}@{entry.version}"
            for name in NAMES
            for entry in _log(self.registry, name)
            if entry.action == "remove"
        ]
        self.registry.restore(self._random.choice(removed or ["sql@1"]))

    def _rebuild(self) -> None:
        """Lose the end of the journal, and make it from the database."""
        with self.registry.database.journal.path.open("r+b") as file:
            file.truncate(file.seek(0, os.SEEK_END) // 2)
            os.fsync(file.fileno())
        list(self.registry.mend(wrong(self.registry)))

    def _heal(self) -> None:
        manifest = self.registry.resolve(self._version()).manifest
        record = manifest.files["adapter_model.safetensors"]
        self.registry.heal(record, self.registry.blobs.path(record.sha256))

    def _lease(self) -> None:
        self.registry.lease([self.registry.resolve(self._version())], HOLDER, 1e6)

    def _reopen(self) -> None:
        """As every command ends: what SQLite's log holds goes into the database."""
        with self.registry.database.reading() as connection:
            pass
        connection.close()
        self.registry = LocalRegistry(self.registry.home)

    def _attest(self) -> None:
        version = self.registry.resolve(self._version())
        self.registry.attest(version, "eval", {"turn": self._turn})
