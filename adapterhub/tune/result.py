"""What a search hands back and keeps: its trials, and what the winner scores on other rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapterhub.merge.result import MergeResult
from adapterhub.tune.scorer import TaskScore

TRIALS = "trials.jsonl"
REPORT = "tuning_report.json"


@dataclass(frozen=True, slots=True)
class Trial:
    """One candidate. shares: of the best single's score, by task; none where it failed.

    recipe: what the candidate was merged with. seconds: to merge and to score it.
    """

    number: int
    recipe: dict[str, Any]
    shares: tuple[float, ...]
    scores: tuple[TaskScore, ...]
    seconds: float
    problem: str | None = None

    @property
    def value(self) -> float:
        """The mean of the shares, which is searched for; 0 where it failed."""
        return sum(self.shares) / len(self.shares) if self.shares else 0.0

    @property
    def worst(self) -> float:
        """The smallest share."""
        return min(self.shares, default=0.0)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "number": self.number,
            **self.recipe,
            "mean_share": self.value,
            "worst_share": self.worst,
            "scores": {score.task: score.score for score in self.scores},
            "seconds": round(self.seconds, 2),
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A subject on the rows that were not chosen on. Shares are None where a best single is 0."""

    subject: str
    scores: tuple[TaskScore, ...]
    mean_share: float | None
    worst_share: float | None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "subject": self.subject,
            "scores": [score.as_dict() for score in self.scores],
            "mean_share": self.mean_share,
            "worst_share": self.worst_share,
        }


@dataclass(frozen=True, slots=True)
class TuneResult:
    """A finished search. best_singles: the adapter by task that shares are measured against."""

    merged: MergeResult
    metric: str
    best: Trial
    trials: tuple[Trial, ...]
    best_singles: dict[str, str]
    report: tuple[ReportRow, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `--json`: the merge, and what was found."""
        return {
            **self.merged.as_dict(),
            "tuning": {
                "metric": self.metric,
                "best_trial": self.best.number,
                "best_singles": self.best_singles,
                "trials": [trial.as_dict() for trial in self.trials],
                "report": [row.as_dict() for row in self.report],
            },
        }


def report_row(subject: str, scores: Sequence[TaskScore], bests: Sequence[float]) -> ReportRow:
    """bests: what the best singles score on the same rows."""
    if not all(bests):
        return ReportRow(subject, tuple(scores), None, None)
    shares = [score.score / best for score, best in zip(scores, bests, strict=True)]
    return ReportRow(subject, tuple(scores), sum(shares) / len(shares), min(shares))


def trials_table(trials: Sequence[Trial]) -> str:
    """A line of JSON for each trial."""
    return "".join(json.dumps(trial.as_dict(), sort_keys=True) + "\n" for trial in trials)


def report_text(rows: Sequence[ReportRow]) -> str:
    """The report with its intervals, as JSON."""
    return json.dumps([row.as_dict() for row in rows], indent=2) + "\n"
