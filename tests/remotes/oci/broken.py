"""What the cases of a broken remote have in common."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from adapterhub.manifest import Version, canonical_json, sha256_of

IMAGE = "application/vnd.oci.image.manifest.v1+json"
TIMEOUT_SECONDS = 0.4


@dataclass(frozen=True)
class Broken:
    """What a case needs to break an answer: the request, the right answer, the version."""

    asked: Any
    reply: Any
    version: Version
    relay: Any
    make_reply: Any

    @property
    def is_weights(self) -> bool:
        return self.version.manifest.files["adapter_model.safetensors"].sha256 in self.asked.path

    @property
    def is_config(self) -> bool:
        return self.version.digest in self.asked.path

    @property
    def is_image(self) -> bool:
        return "/manifests/" in self.asked.path

    def image(self, **changes: Any) -> Any:
        """The image manifest with changes, under its right digest."""
        body = canonical_json(json.loads(self.reply.body) | changes)
        return self.make_reply(200, length(body, {"Content-Type": IMAGE}), body)

    def other_manifest(self, **changes: Any) -> Any:
        """The answer to a consistent lie: another config blob, and an image that names it."""
        value = json.loads(self.version.manifest.canonical()) | changes
        body = canonical_json(value)
        if self.is_image:
            config = json.loads(self.reply.body)["config"]
            config |= {"digest": sha256_of(body), "size": len(body)}
            return self.image(config=config)
        if sha256_of(body) in self.asked.path:
            return self.make_reply(200, length(body), body)
        return None


def length(body: bytes, headers: dict[str, str] | None = None) -> dict[str, str]:
    return {"Content-Length": str(len(body)), **(headers or {})}
