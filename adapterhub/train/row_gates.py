"""What refuses rows, and what is said of the first before training. Imports no torch.

Every gate raises AdzError (exit code 3) that says what is wrong.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

from adapterhub import specs
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.train.rows import IGNORED, Row, Rows


def check_rows(rows: Rows, stop: int, pad: int) -> None:
    """Every row is scored, ends with the stop token, and padding is not that token."""
    if pad == stop:
        raise refusal(
            f"the padding token is the stop token ({stop})", "the model would never learn to stop"
        )
    for number, row in enumerate(rows, 1):
        labels = row.labels
        if all(label == IGNORED for label in labels):
            raise refusal(f"row {number} has no token that is scored", "its completion is empty")
        if labels[-1] != stop:
            raise refusal(
                f"row {number} does not end with the stop token", "the model would not stop"
            )


def refusal(message: str, hint: str) -> AdzError:
    """A gate's error."""
    return AdzError(message, hint, exit_code=EXIT_VERIFICATION)


def preview(row: Row, tokenizer: Any, marked: tuple[str, str] = ("[", "]")) -> str:
    """The row as the loss sees it: what is between the marks is not scored.

    Decoded from the token ids and labels themselves, not from the text that they came from.
    """
    opening, closing = marked
    parts, labels = [], row.labels
    for scored, places in groupby(range(len(labels)), lambda i: labels[i] != IGNORED):
        text = str(tokenizer.decode([row.ids[place] for place in places]))
        parts.append(text if scored or not text else f"{opening}{text}{closing}")
    return "".join(parts)


def announce(objective: specs.Objective, row: Row, tokenizer: Any) -> str:
    """What is said of the first row before training: what is scored, or what is asked."""
    if objective.generates:
        return f"the model is asked: {tokenizer.decode(row.ids[: row.start])}"
    seen = f"the loss sees (all but [...]): {preview(row, tokenizer)}"
    worse = f"\nand less of: {tokenizer.decode(row.rejected)}" if row.rejected else ""
    return seen + worse
