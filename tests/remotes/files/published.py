"""A version that tests publish without a registry."""

from __future__ import annotations

from adapterhub.protocols import RemoteVersion

MANIFEST = b'{"name":"sql"}'


def published(manifest: bytes = MANIFEST, signature: bytes | None = None) -> RemoteVersion:
    return RemoteVersion(manifest, signature)
