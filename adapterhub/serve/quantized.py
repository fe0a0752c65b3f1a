"""Adapters that were trained over a quantised base are served over the base itself: how they do
there is said, not assumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from adapterhub.manifest import BaseRecord, Version
from adapterhub.protocols import Registry
from adapterhub.serve.models import servable_versions


def quantizer_notes(registry: Registry, base: BaseRecord) -> Iterator[str]:
    """A line for the newest servable version of each name that was trained over a quantizer:
    its held-out loss there, and what was measured over the base that serves."""
    for version in servable_versions(registry, base, scope="latest"):
        if version.manifest.quantizer:
            yield _note(registry, base, version)


def _note(registry: Registry, base: BaseRecord, version: Version) -> str:
    manifest = version.manifest
    text = f"{version.reference} was trained over {manifest.quantizer}"
    there, here = (manifest.metrics.get(k) for k in ("holdout_loss", "holdout_loss_served"))
    if there is not None and here is not None:
        return text + (
            f" (held-out loss {there:.3f}) and is served over {base.dtype} "
            f"(held-out loss {here:.3f}, {here - there:+.3f})"
        )
    text += f" and is served over {base.dtype}: "
    # adz eval answers over the base as it is, in process and through a server.
    scores = registry.attestations(version, "evaluation")
    if not scores:
        return text + f"not compared yet, see adz eval {version.name} --data FILE"
    latest: Any = scores[-1]["body"]
    return text + (
        f"{latest['metric']} {latest['score']:.3f} there, the base {latest['base']['score']:.3f}"
    )
