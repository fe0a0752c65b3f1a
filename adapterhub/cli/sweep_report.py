"""The table of a sweep, the plot of its losses, and the winner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.cli.output import format_table

if TYPE_CHECKING:
    from adapterhub.train.sweep import Member, Sweep


def summarise(result: Sweep, plot: Path) -> dict[str, Any]:
    """For `--json`."""
    winner = result.winner
    return {
        "members": [
            {
                "label": member.label,
                "reference": member.version.reference if member.version else None,
                "error": str(member.error) if member.error else None,
                "metrics": member.version.manifest.metrics if member.version else None,
            }
            for member in result.members
        ],
        "joint": result.joint,
        "why": result.why,
        "winner": winner.version.reference if winner and winner.version else None,
        "plot": str(plot),
    }


def describe_sweep(result: Sweep, plot: Path) -> str:
    """For people: one line a run, the best marked; then what one would want next."""
    from adapterhub.train.sweep import WINNER

    rows = [_row(member, member is result.winner) for member in result.members]
    table = format_table(("run", "version", "train loss", "held out", "tokens/s", ""), rows)
    how = "in one forward pass" if result.joint else f"one after the other: {result.why}"
    lines = [table, f"trained {how}", f"curves {plot}"]
    if result.winner is not None and result.winner.version is not None:
        best = f"{result.winner.version.name}@{WINNER}"
        lines += [
            f"{best} is {result.winner.version.reference}",
            "next:",
            f"  adz eval {best} --data TEST.jsonl    # rows that it has not seen",
            f"  adz chat {best}",
            f"  adz log {result.winner.version.name}",
        ]
    return "\n".join(lines)


def _row(member: Member, best: bool) -> tuple[str, ...]:
    if member.version is None:
        return (member.label, "refused", "", "", "", str(member.error))
    metrics = member.version.manifest.metrics
    held = metrics.get("holdout_loss")
    return (
        member.label,
        member.version.reference,
        f"{metrics['train_loss']:.3f}",
        "" if held is None else f"{held:.3f}",
        f"{metrics['tokens_per_second']:.0f}",
        "best" if best else "",
    )
