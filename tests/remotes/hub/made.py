"""A version that tests put on the Hub without a registry."""

from __future__ import annotations

import json
import os
from pathlib import Path

from adapterhub.manifest import BaseLink, Manifest, payload_digest, sha256_of
from adapterhub.manifest import FileRecord as Record
from adapterhub.protocols import Remote, RemoteFile, RemoteVersion

WEIGHTS = os.urandom(3 * 2**20)
CARD = "---\ntags:\n- adapterhub\n---\n# card\n"


class Made:
    """A version as its bytes, without a registry."""

    def __init__(self, tmp_path: Path, number: int, files: dict[str, bytes], name: str) -> None:
        self.name = name
        self.contents = files
        records = {n: Record(sha256=sha256_of(d), size=len(d)) for n, d in files.items()}
        payload = {n: r for n, r in records.items() if not n.startswith("artifacts/")}
        manifest = Manifest(
            name=name,
            version=number,
            method="lora",
            made_by="train",
            base=BaseLink(status="unknown"),
            files=payload,
            artifacts={
                n.removeprefix("artifacts/"): r for n, r in records.items() if n not in payload
            },
            payload=payload_digest(payload),
        )
        self.manifest = manifest.canonical()
        self.files = [RemoteFile(n, r) for n, r in records.items()]
        self._folder = tmp_path

    def write(self, remote: Remote) -> None:
        """Upload from sources that are gone afterwards, equal bytes once."""
        for file in {f.record.sha256: f for f in self.files}.values():
            if not remote.contains(self.name, file):
                source = self._folder / "source"
                source.write_bytes(self.contents[file.name])
                remote.write(self.name, file, source, lambda count: None)
                source.unlink()

    def push(self, remote: Remote, *aliases: str, signature: bytes | None = None) -> None:
        number = str(json.loads(self.manifest)["version"])
        remote.find(self.name, number)
        self.write(remote)
        remote.publish(self.name, RemoteVersion(self.manifest, signature), [number, *aliases], CARD)

    def check(self, remote: Remote, tag: str) -> RemoteVersion:
        """Find it under the tag, and read each file."""
        found = remote.find(self.name, tag)
        assert found is not None
        assert found.manifest == self.manifest
        for file in self.files:
            data = b"".join(remote.read(self.name, found, file, 0))
            assert data == self.contents[file.name], file.name
        return found
