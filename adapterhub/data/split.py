"""The hold-out: decided by a hash of the prompt, so that equal prompts fall on one side."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence

from adapterhub.data.store import select
from adapterhub.manifest import canonical_json
from adapterhub.protocols import Example


def prompt_key(example: Example) -> bytes:
    """What makes two examples the same question; for plain text the text itself."""
    if example.messages:
        return canonical_json([dict(message) for message in example.messages[:-1]])
    return (example.prompt or example.completion).encode()


def content_key(example: Example) -> bytes:
    """A digest of all of a row: equal rows have the same."""
    return hashlib.sha256(
        canonical_json(
            [
                example.prompt,
                example.completion,
                [dict(message) for message in example.messages],
                [dict(tool) for tool in example.tools],
                example.rejected,
                example.desirable,
            ]
        )
    ).digest()


def split_holdout(
    examples: Sequence[Example], share: float, seed: int = 0
) -> tuple[Sequence[Example], Sequence[Example]]:
    """Return (train, hold-out), both in the order of the file, as `split_indices` says."""
    train, held = split_indices(examples, share, seed)
    return select(examples, train), select(examples, held)


def split_indices(
    examples: Sequence[Example], share: float, seed: int = 0
) -> tuple[list[int], list[int]]:
    """Return the indices of (train, hold-out), both rising.

    A prompt is held out when its hash, read as a number in [0, 1), is below `share`; adding
    rows never moves a prompt to the other side. Where a positive share of few prompts would
    hold out none, the prompt with the lowest hash is; one prompt alone stays in training.
    """
    places = array("d", (place_of(prompt_key(example), seed) for example in examples))
    limit = share
    if share > 0 and places and min(places) >= share and len(set(places)) > 1:
        limit = sorted(set(places))[1]
    train = [index for index, place in enumerate(places) if place >= limit]
    return train, [index for index, place in enumerate(places) if place < limit]


def place_of(key: bytes, seed: int) -> float:
    """A number in [0, 1) that depends on the key and the seed alone."""
    digest = hashlib.sha256(f"{seed}:".encode() + key).digest()
    # 53 bits: every such fraction is exact in a double.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53
