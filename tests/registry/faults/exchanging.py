"""Random work on a registry that pushes to a directory, from which a second registry pulls."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from workload import Steps, Workload, snapshot

from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.exchange.remotes import open_remote
from adapterhub.manifest import Manifest, sha256_of
from adapterhub.merge.silent import Silent
from adapterhub_registry.store import LocalRegistry

# Each kind of exchange once, in an order in which each has something to do.
EXCHANGE = (
    "commit", "push", "pull", "tag", "push alias", "pull alias", "view", "remove name", "gc",
    "pull back", "commit", "push", "pull",
)  # fmt: skip


class ExchangingWorkload(Workload):
    """A `Workload` on `home`, `share` and `mirror` below one folder."""

    def __init__(self, folder: Path, payloads: Path, seed: int) -> None:
        super().__init__(LocalRegistry(folder / "home"), payloads, seed)
        self.mirror = LocalRegistry(folder / "mirror")
        self.share = folder / "share"

    def registries(self) -> list[LocalRegistry]:
        """Both."""
        return [self.registry, self.mirror]

    def snapshot(self) -> dict[str, Any]:
        """All that the three acknowledge."""
        return {
            "home": snapshot(self.registry),
            "mirror": snapshot(self.mirror),
            "share": shared(self.share),
        }

    def push(self, reference: str) -> None:
        """From the registry to the directory."""
        os.environ["ADZ_HOME"] = str(self.registry.home)
        list(push(self.registry, open_remote(str(self.share)), [reference], Silent()))

    def pull(self, registry: LocalRegistry, reference: str) -> None:
        """From the directory to one of the registries."""
        os.environ["ADZ_HOME"] = str(registry.home)
        list(pull(registry, open_remote(str(self.share)), [reference], Silent()))

    def _steps(self) -> Steps:
        return super()._steps() | {
            "push": (3, lambda: self.push(self._unpublished())),
            "push alias": (1, self._push_alias),
            "pull": (3, lambda: self.pull(self.mirror, self._published(self.mirror))),
            "pull alias": (1, self._pull_alias),
            "pull back": (1, lambda: self.pull(self.registry, self._published(self.registry))),
        }

    def _push_alias(self) -> None:
        """Of a version that is there already, so that it is one change."""
        there = shared(self.share)
        found = [
            f"{version.name}@{alias}"
            for version in self.registry.versions()
            for alias in version.aliases
            if str(version.number) in there.get(version.name, {})
        ]
        self.push(self._random.choice(found or ["sql@none"]))

    def _pull_alias(self) -> None:
        """Of a version that is here already, so that it is one change."""
        here = {version.digest for version in self.mirror.versions()}
        found = [
            f"{name}@{tag}"
            for name, tags in shared(self.share).items()
            for tag, digest in tags.items()
            if digest in here and not tag.isdigit()
        ]
        self.pull(self.mirror, self._random.choice(found or ["sql@none"]))

    def _unpublished(self) -> str:
        there = shared(self.share)
        found = [
            version.reference
            for version in self.registry.versions()
            if str(version.number) not in there.get(version.name, {})
        ]
        return self._random.choice(found or [self._version()])

    def _published(self, registry: LocalRegistry) -> str:
        """What is in the directory, by its number; rather what `registry` lacks."""
        here = {version.digest for version in registry.versions()}
        there = {
            f"{name}@{tag}": digest
            for name, tags in shared(self.share).items()
            for tag, digest in tags.items()
            if tag.isdigit()
        }
        missing = [reference for reference, digest in there.items() if digest not in here]
        return self._random.choice(missing or list(there) or ["sql@1"])


def shared(folder: Path) -> dict[str, dict[str, str]]:
    """What a directory holds that was pushed to: name -> tag -> digest of the manifest. Read
    without the code of remotes, every file of every version; ValueError for a wrong one."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted((folder / "names").glob("**/_tags/*")):
        digest = json.loads(path.read_bytes())["manifest"]
        body = _blob(folder, digest)
        manifest = Manifest.model_validate_json(body)
        if not path.match(f"{manifest.name}/_tags/*") or manifest.canonical() != body:
            raise ValueError(f"{path} is not of {manifest.name}")
        for record in [*manifest.files.values(), *manifest.artifacts.values()]:
            _blob(folder, record.sha256)
        found.setdefault(manifest.name, {})[path.name] = digest
    return found


def _blob(folder: Path, digest: str) -> bytes:
    data = (folder / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
    if sha256_of(data) != digest:
        raise ValueError(f"{digest} is damaged")
    return data
