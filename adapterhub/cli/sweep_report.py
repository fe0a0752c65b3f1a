"""The table of a sweep, the plot of its losses, and the winners."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.cli.output import format_table

if TYPE_CHECKING:
    from adapterhub.train.sweep import Member, Sweep


def summarise(result: Sweep, plot: Path) -> dict[str, Any]:
    """For `--json`."""
    labels = [member.label for member in result.members]
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
        "passes": [
            {"runs": [labels[number] for number in part.runs], "apart": part.why or None}
            for part in result.passes
        ],
        "winners": [winner.version.reference for winner in result.winners if winner.version],
        "plot": str(plot),
    }


def describe_sweep(result: Sweep, plot: Path) -> str:
    """For people: one line a run, the best marked; then what one would want next."""
    rows = [_row(member, member in result.winners) for member in result.members]
    table = format_table(("run", "version", "train loss", "held out", "tokens/s", ""), rows)
    lines = [table, *_passes(result), f"curves {plot}"]
    if not result.winners:
        lines.append("none is the best: they are not scored alike, on the same rows")
    for winner in result.winners:
        lines += _next(winner)
    return "\n".join(lines)


def _passes(result: Sweep) -> list[str]:
    labels = [member.label for member in result.members]
    if len(labels) == 1:
        return []
    if all(len(part.runs) == 1 for part in result.passes):
        return [f"trained one after the other: {result.passes[0].why}"]
    if len(result.passes) == 1:
        return ["trained side by side"]
    return [
        f"trained {'side by side' if len(part.runs) > 1 else 'by itself'}: "
        + ", ".join(labels[number] for number in part.runs)
        + (f" ({part.why})" if part.why else "")
        for part in result.passes
    ]


def _next(winner: Member) -> list[str]:
    from adapterhub.train.sweep import WINNER

    if winner.version is None:
        return []
    best = f"{winner.version.name}@{WINNER}"
    return [
        f"{best} is {winner.version.reference}",
        "next:",
        f"  adz eval {best} --data TEST.jsonl    # rows that it has not seen",
        f"  adz chat {best}",
        f"  adz log {winner.version.name}",
    ]


def _row(member: Member, best: bool) -> tuple[str, ...]:
    if member.version is None:
        return (member.label, "refused", "", "", "", str(member.error))
    metrics = member.version.manifest.metrics
    held = member.held_out
    return (
        member.label,
        member.version.reference,
        f"{metrics['train_loss']:.3f}",
        "" if held is None else f"{held:.3f}",
        f"{metrics['tokens_per_second']:.0f}",
        "best" if best else "",
    )
