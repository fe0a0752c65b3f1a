"""What `adz train` says of a finished run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapterhub.manifest import BaseRecord, Version


_TOLD = {"holdout_accuracy"}
"""What has words of its own in the line about a run."""


def describe(facts: Mapping[str, Any]) -> str:
    """The figures of a run in one line."""
    parts = [f"train loss {facts['train_loss']:.3f}"]
    if "holdout_loss" in facts:
        parts.append(
            f"held-out loss {facts['holdout_loss']:.3f} (base {facts['holdout_loss_base']:.3f})"
        )
    if "holdout_accuracy" in facts:
        parts.append(f"held-out pairs told apart {100 * facts['holdout_accuracy']:.1f} %")
    if "holdout_loss" not in facts:
        own = [name for name in facts if name.startswith("holdout_") and name not in _TOLD]
        parts += [f"held-out {name[8:].replace('_', ' ')} {facts[name]:.3f}" for name in own[:2]]
    if "holdout_loss_served" in facts:
        parts.append(f"over the base as it is served {facts['holdout_loss_served']:.3f}")
    parts.append(f"{facts['steps']} steps, {facts['tokens_per_second']:.0f} tokens/s")
    return ", ".join(parts)


def summarise(version: Version) -> dict[str, Any]:
    """For `--json`."""
    return {
        "reference": version.reference,
        "digest": version.digest,
        "method": version.manifest.method,
        "base": version.manifest.base.name,
        "adapter": version.manifest.adapter,
        "metrics": version.manifest.metrics,
    }


def tell(version: Version, base: str) -> str:
    """For people."""
    return "\n".join(
        (
            f"{version.reference}  {describe(version.manifest.metrics)}",
            "next:",
            f"  adz eval {version.name} --data TEST.jsonl    # rows that it has not seen",
            f"  adz chat {version.name}",
            f"  adz serve {base}",
        )
    )


def summarise_base(base: BaseRecord) -> dict[str, Any]:
    """For `--json`, of a run that made a base."""
    made = base.derivation or {}
    return {
        "base": base.name,
        "from": made["from"],
        "method": made["method"],
        "digests": base.digests.model_dump(mode="json"),
        "path": base.path,
        "metrics": made["metrics"],
    }


def tell_base(base: BaseRecord) -> str:
    """For people, of a run that made a base."""
    made = base.derivation or {}
    return "\n".join(
        (
            f"{base.name}, a base made from {made['from']}  {describe(made['metrics'])}",
            "next:",
            f"  adz eval {base.name} --data TEST.jsonl    # rows that it has not seen",
            f"  adz train --base {base.name} --data ROWS.jsonl",
            f"  adz serve {base.name}",
        )
    )
