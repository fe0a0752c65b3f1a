"""The hold-out: decided by a hash of the prompt, so that equal prompts fall on one side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from adapterhub.manifest import canonical_json
from adapterhub.protocols import Example


def prompt_key(example: Example) -> bytes:
    """What makes two examples the same question; for plain text the text itself."""
    if example.messages:
        return canonical_json([dict(message) for message in example.messages[:-1]])
    return (example.prompt or example.completion).encode()


def split_holdout(
    examples: Sequence[Example], share: float, seed: int = 0
) -> tuple[list[Example], list[Example]]:
    """Return (train, hold-out), both in the order of the file.

    A prompt is held out when its hash, read as a number in [0, 1), is below `share`; adding
    rows never moves a prompt to the other side. Where a positive share of few prompts would
    hold out none, the prompt with the lowest hash is; one prompt alone stays in training.
    """
    places = [_place(prompt_key(example), seed) for example in examples]
    limit = share
    if share > 0 and places and min(places) >= share and len(set(places)) > 1:
        limit = sorted(set(places))[1]
    train = [e for e, place in zip(examples, places, strict=True) if place >= limit]
    held = [e for e, place in zip(examples, places, strict=True) if place < limit]
    return train, held


def _place(key: bytes, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:".encode() + key).digest()
    # 53 bits: every such fraction is exact in a double.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
