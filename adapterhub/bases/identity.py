"""Whether an adapter belongs to a base: by digests, never by a name.

The same weights, architecture and tokenizer are needed; another chat template is worth a
warning. A base that is recorded as quantised from the adapter's own counts as that one.
"""

from __future__ import annotations

from typing import Any

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import BaseDigests, BaseRecord, Version

PARTS = ("weights", "arch", "tokenizer", "chat_template")

_WORDS = {"chat_template": "chat template"}
_REASONS = {
    "arch": "it has other tensors or another configuration",
    "weights": "the same architecture with other weights",
    "tokenizer": "the same weights with another tokenizer",
}


def explain_difference(expected: BaseDigests, given: BaseDigests) -> list[str]:
    """Which parts differ: `weights`, `arch`, `tokenizer`, `chat_template`; none when equal."""
    return [part for part in PARTS if getattr(expected, part) != getattr(given, part)]


def describe_difference(expected: BaseDigests, given: BaseDigests) -> str:
    """What differs, with both short digests: `weights 1f03ab29c1d4 against 77be0912aa01`."""
    return ", ".join(
        f"{_WORDS.get(part, part)} {_short(getattr(expected, part))} against "
        f"{_short(getattr(given, part))}"
        for part in explain_difference(expected, given)
    )


def why_not_same(expected: BaseDigests, base: BaseRecord) -> str | None:
    """Why what was made on `expected` may not be used on `base`; None when it may."""
    differing = explain_difference(expected, base.digests)
    if _is_quantised_from(base, expected):
        differing = [part for part in differing if part not in ("arch", "weights")]
    reason = next((text for part, text in _REASONS.items() if part in differing), None)
    return f"{reason} ({describe_difference(expected, base.digests)})" if reason else None


def why_not_version(version: Version, base: BaseRecord) -> str | None:
    """Why `version` may not be used on `base`; None when it may. What does not know its base
    is used on none."""
    link = version.manifest.base
    if link.status == "unknown" or link.digests is None:
        return f"the base of {version.reference} is not known"
    reason = why_not_same(link.digests, base)
    if reason is None:
        return None
    other = link.name if link.name and link.name != base.name else "another base"
    return f"{version.reference} was made for {other}, not for {base.name}: {reason}"


def check_version(version: Version, base: BaseRecord) -> None:
    """Raise AdzError (exit code 3) when `version` may not be used on `base`."""
    reason = why_not_version(version, base)
    if reason is not None:
        hint = f"if {base.name} is right: adz import {version.reference} --base {base.name}"
        if version.manifest.base.status == "recorded":
            hint = "use the base that it was made for"
        raise AdzError(reason, hint, exit_code=EXIT_VERIFICATION)


def template_warning(version: Version, base: BaseRecord) -> str | None:
    """What to say where a version was made with another chat template than the base's."""
    expected = version.manifest.base.digests
    if expected is None or expected.chat_template == base.digests.chat_template:
        return None
    return (
        f"{version.reference} was made with another chat template than {base.name} has "
        f"({describe_difference(expected, base.digests)})"
    )


def derivation_from(base: BaseRecord, kind: str) -> dict[str, Any]:
    """The record of how a base was made from `base`, for `BaseRecord.derivation`."""
    return {"kind": kind, "from": base.name, "digests": base.digests.model_dump(mode="json")}


def _is_quantised_from(base: BaseRecord, original: BaseDigests) -> bool:
    made = base.derivation or {}
    source = made.get("digests") if made.get("kind") == "quantised" else None
    return isinstance(source, dict) and all(
        source.get(part) == getattr(original, part) for part in ("weights", "arch")
    )


def _short(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:12] if digest else "none"
