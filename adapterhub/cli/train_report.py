"""What `adz train` says of a finished run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapterhub.manifest import BaseRecord, Version


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
    from adapterhub.train.pipeline import describe

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
    from adapterhub.train.pipeline import describe

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
