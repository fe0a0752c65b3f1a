"""The OCI image manifest of a version: what is the config, what are the layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from adapterhub.cards import license_of
from adapterhub.manifest import FileRecord, Manifest, canonical_json, sha256_of
from adapterhub_remotes.oci.answer import JSON_BYTES, damaged

IMAGE = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT = "application/vnd.adapterhub.adapter.v1"
CONFIG = "application/vnd.adapterhub.manifest.v1+json"
SIGNATURE = "application/vnd.adapterhub.signature.v1+json"
CARD = "application/vnd.adapterhub.card.v1+markdown"

_TITLE = "org.opencontainers.image.title"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TYPES = {".json": "application/json", ".md": "text/markdown"}


def build_image(manifest: bytes, signature: bytes | None, card: str) -> bytes:
    """The image manifest of a version whose manifest has these bytes.

    The files are layers with their names as titles, as `oras` names them; then the signature
    and the card.
    """
    version = Manifest.model_validate_json(manifest)
    files = dict(version.files)
    files |= {f"artifacts/{name}": record for name, record in version.artifacts.items()}
    layers = [_layer(name, record) for name, record in files.items()]
    if signature is not None:
        layers.append(_descriptor(SIGNATURE, signature))
    layers.append(_descriptor(CARD, card.encode()))
    annotations = {
        "org.opencontainers.image.created": version.created,
        _TITLE: f"{version.name}@{version.version}",
    }
    if license_name := license_of(card):
        annotations["org.opencontainers.image.licenses"] = license_name
    image = {
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "artifactType": ARTIFACT,
        "config": _descriptor(CONFIG, manifest),
        "layers": layers,
        "annotations": annotations,
    }
    return canonical_json(image)


def config_of(image: Mapping[str, Any], url: str) -> FileRecord:
    """Where the version's manifest lies. Raises AdzError for an image that is no adapter."""
    config = image.get("config")
    if not isinstance(config, Mapping) or config.get("mediaType") != CONFIG:
        raise damaged(url, "is no adapter, but an image of another kind")
    return _small_record(config, url)


def signature_of(image: Mapping[str, Any], url: str) -> FileRecord | None:
    """Where the signature lies, if there is one."""
    layers = image.get("layers")
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, Mapping) and layer.get("mediaType") == SIGNATURE:
            return _small_record(layer, url)
    return None


def _small_record(descriptor: Mapping[str, Any], url: str) -> FileRecord:
    digest, size = descriptor.get("digest"), descriptor.get("size")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise damaged(url, "names a blob without a sha256 digest")
    if type(size) is not int or not 0 <= size <= JSON_BYTES:
        raise damaged(url, "names a manifest or a signature that is larger than 1 MiB")
    return FileRecord(sha256=digest, size=size)


def _layer(name: str, record: FileRecord) -> dict[str, Any]:
    media_type = _TYPES.get(PurePosixPath(name).suffix, "application/octet-stream")
    descriptor = {"mediaType": media_type, "digest": record.sha256, "size": record.size}
    return {**descriptor, "annotations": {_TITLE: name}}


def _descriptor(media_type: str, body: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256_of(body), "size": len(body)}
