"""The table of a tuned merge: the singles, the merge without tuning, and the winner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterhub.cli.output import format_table

if TYPE_CHECKING:
    from adapterhub.tune.result import TuneResult
    from adapterhub.tune.scorer import TaskScore


def describe_tuning(result: TuneResult) -> str:
    """What every subject scores on the rows that nothing was chosen on."""
    first = result.report[0].scores
    counts = ", ".join(str(n) for n in sorted({score.n for score in first}))
    header = (
        f"{result.metric} % [95 %], n = {counts}",
        *(score.task for score in first),
        "mean share",
        "worst",
    )
    rows = [
        (row.subject, *map(_cell, row.scores), _share(row.mean_share), _share(row.worst_share))
        for row in result.report
    ]
    owners = ", ".join(f"{task}: {label}" for task, label in result.best_singles.items())
    return (
        f"{format_table(header, rows)}\n"
        f"on rows that were not chosen on; shares of the best single ({owners})\n"
        f"best of {len(result.trials)} trials: {result.best.value:.1%} mean share, "
        f"{result.best.worst:.1%} worst, on the rows that were"
    )


def _cell(score: TaskScore) -> str:
    return f"{score.score:6.1%} [{score.low:.1%}, {score.high:.1%}]".replace("%", "")


def _share(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
