"""Random work on a registry that pushes to a directory, from which a second registry pulls."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from quiet import Quiet
from workload import Steps, Workload, snapshot

from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.exchange.remotes import open_remote
from adapterhub.manifest import Manifest, sha256_of
from adapterhub_registry.store import LocalRegistry

# Each kind of exchange once, in an order in which each has something to do.
EXCHANGE = (
    "commit", "push", "pull", "tag", "push alias", "pull alias", "remove name", "gc", "pull back",
    "commit", "push", "pull",
)  # fmt: skip


class ExchangingWorkload(Workload):
    """A `Workload` on `home`, `share` and `mirror` below one folder."""

    def __init__(self, folder: Path, payloads: Path, seed: int) -> None:
        super().__init__(LocalRegistry(folder / "home"), payloads, seed)
        self.mirror = LocalRegistry(folder / "mirror")
        self.share = folder / "share"

    def snapshot(self) -> dict[str, Any]:
        """All that the three acknowledge."""
        return {
            "home": snapshot(self.registry),
            "mirror": snapshot(self.mirror),
            "share": shared(self.share),
        }

    def _steps(self) -> Steps:
        return super()._steps() | {
            "push": (3, lambda: self._push(self._version())),
            "push alias": (1, self._push_alias),
            "pull": (3, lambda: self._pull(self.mirror, self._published())),
            "pull alias": (1, self._pull_alias),
            "pull back": (1, lambda: self._pull(self.registry, self._published())),
        }

    def _push(self, reference: str) -> None:
        os.environ["ADZ_HOME"] = str(self.registry.home)
        list(push(self.registry, open_remote(str(self.share)), [reference], Quiet()))

    def _pull(self, registry: LocalRegistry, reference: str) -> None:
        os.environ["ADZ_HOME"] = str(registry.home)
        list(pull(registry, open_remote(str(self.share)), [reference], Quiet()))

    def _push_alias(self) -> None:
        """Of a version that is there already, so that it is one change."""
        there = shared(self.share)
        found = [
            f"{version.name}@{alias}"
            for version in self.registry.versions()
            for alias in version.aliases
            if str(version.number) in there.get(version.name, {})
        ]
        if found:
            self._push(self._random.choice(found))

    def _pull_alias(self) -> None:
        """Of a version that is here already, so that it is one change."""
        here = {version.digest for version in self.mirror.versions()}
        found = [
            f"{name}@{tag}"
            for name, tags in shared(self.share).items()
            for tag, digest in tags.items()
            if digest in here and not tag.isdigit()
        ]
        if found:
            self._pull(self.mirror, self._random.choice(found))

    def _published(self) -> str:
        there = [f"{n}@{tag}" for n, tags in shared(self.share).items() for tag in tags]
        numbers = [reference for reference in there if reference.rpartition("@")[2].isdigit()]
        return self._random.choice(numbers) if numbers else "sql@1"


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
