"""A fifth task, which comes from no package: a number and how the Romans wrote it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

_LETTERS = (
    (1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"),
    (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"),
)  # fmt: skip
_TEST = 300


def write(folder: Path) -> None:
    """`roman.train.jsonl` and `roman.test.jsonl`: 1 to 3999, in the order of their hashes."""
    order = sorted(range(1, 4000), key=lambda n: hashlib.sha256(f"roman {n}".encode()).digest())
    for part, numbers in (("test", order[:_TEST]), ("train", order[_TEST:])):
        rows = [
            {"prompt": f"Number: {number}\nRoman:", "completion": f" {letters(number)}"}
            for number in numbers
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"roman.{part}.jsonl").write_text(text, encoding="utf-8")


def letters(number: int) -> str:
    """1 to 3999 in Roman numerals: `MCMXCIV`."""
    text = ""
    for value, sign in _LETTERS:
        text += sign * (number // value)
        number %= value
    return text
