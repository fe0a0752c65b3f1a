"""The page and the picture: docs/merge-quality.md and docs/merge-quality.svg."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from machine import machine

from quality.merges import Merge
from quality.scores import Points
from quality.shares import Estimate, Kept


@dataclass(frozen=True)
class Entry:
    """A merge with the product's defaults, and with what was chosen for it."""

    default: Merge
    default_kept: Kept
    tuned: Merge | None = None
    tuned_kept: Kept | None = None
    usual: bool = False

    @property
    def name(self) -> str:
        """Bold where it is what the rule does without `--space`."""
        return f"**{self.default.label}**" if self.usual else self.default.label


@dataclass(frozen=True)
class Page:
    """All that the page says."""

    tasks: Sequence[str]
    scores: dict[str, dict[str, float]]
    """Plain scores by model and task: the base, own adapters, joint training."""
    beside: dict[str, Kept]
    entries: Sequence[Entry]
    rows: int
    validation: int
    seeds: Sequence[int]

    def text(self) -> str:
        """Markdown."""
        head = _HEAD.format(**self._facts())
        return "\n".join([head, *self._short(), *self._scores(), *self._kept(), ""])

    def _short(self) -> list[str]:
        """The figures that decide, in sentences."""
        knowing = [entry for entry in self.entries if entry.default.rule == "regmean"]
        blind = [e for e in self.entries if e.default.rule != "regmean" and not e.default.compat]
        peers = [entry for entry in self.entries if entry.default.compat == "peft"]
        said = []
        for entry in knowing:
            said.append(
                f"- `{entry.default.rule}` knows what went into each module in training "
                f"(`training.input_moments`). Without any tuning it keeps "
                f"{_both(entry.default_kept)}. Where the adapters have their moments it is what "
                "`adz merge` does when no rule is named."
            )
        if blind:
            best = max(blind, key=lambda entry: entry.default_kept.mean.value)
            said.append(
                f"- Of the rules that see the weights only, {best.default.label} keeps most with "
                f"the defaults: {_both(best.default_kept)}."
            )
        tuned = [entry for entry in blind if entry.tuned_kept]
        if tuned:
            best = min(tuned, key=_tuned_first)
            found = best.tuned_kept or best.default_kept
            said.append(f"- With tuned weights it is {best.default.label}: {_both(found)}.")
        for entry in peers:
            said.append(f"- {entry.default.label.capitalize()}: {_both(entry.default_kept)}.")
        joint = [found for name, found in self.beside.items() if name.startswith("joint")]
        said += [
            f"- Joint training keeps {_both(found)}. Where the rows of all tasks are at hand, "
            "train on them; where a request says which task it is of, serve the adapters beside "
            "each other, which keeps 1 by definition."
            for found in joint
        ]
        return [
            "## In short",
            "",
            *(textwrap.fill(x, 100, subsequent_indent="  ") for x in said),
            "",
        ]

    def _facts(self) -> dict[str, str]:
        return {
            "machine": machine(),
            "rows": str(self.rows),
            "validation": str(self.validation),
            "seeds": ", ".join(map(str, self.seeds)),
            "count": str(len(self.seeds)),
            "tasks": ", ".join(self.tasks),
        }

    def _scores(self) -> list[str]:
        lines = ["## Scores", "", _row("", *self.tasks), _rule(1 + len(self.tasks))]
        for name, scores in self.scores.items():
            lines.append(_row(name, *(f"{scores[task]:.3f}" for task in self.tasks)))
        return [*lines, ""]

    def _kept(self) -> list[str]:
        header = ("", "mean", "worst task", *self.tasks)
        lines = ["## Without merging", "", _row(*header), _rule(len(header))]
        lines += [_row(name, *self._cells(found)) for name, found in self.beside.items()]
        entries = sorted(self.entries, key=lambda entry: -entry.default_kept.mean.value)
        header = ("rule and space", "weights x scale", "density", "seeds")
        header = (*header, "mean", "worst task", *self.tasks)
        lines += ["", "## Merged with the defaults", "", _DEFAULTS, ""]
        lines += [_row(*header), _rule(len(header))]
        for entry in entries:
            lines.append(
                _row(
                    entry.name,
                    *_settings(entry.default, entry.default_kept),
                    *self._cells(entry.default_kept),
                )
            )
        lines += [
            "",
            "## Merged with tuned scale, weights and density",
            "",
            _TUNED.format(validation=self.validation),
            "",
        ]
        lines += [_row(*header), _rule(len(header))]
        for entry in sorted(self.entries, key=_tuned_first):
            if entry.tuned is not None and entry.tuned_kept is not None:
                lines.append(
                    _row(
                        entry.name,
                        *_settings(entry.tuned, entry.tuned_kept),
                        *self._cells(entry.tuned_kept),
                    )
                )
        return lines

    def _cells(self, found: Kept) -> list[str]:
        shares = [f"{found.tasks[task]:.2f}" for task in self.tasks]
        return [str(found.mean), str(found.worst), *shares]

    def draw(self, path: Path) -> None:
        """Mean shares with intervals, the default's and the tuned one's side by side."""
        import matplotlib

        matplotlib.use("svg")
        matplotlib.rcParams["svg.hashsalt"] = "adapterhub"
        from matplotlib import pyplot

        entries = sorted(self.entries, key=lambda entry: entry.default_kept.mean.value)
        figure, axes = pyplot.subplots(figsize=(8, 1 + 0.28 * len(entries)), layout="constrained")
        for shift, color, label, side in (
            (-0.15, "tab:blue", "defaults", "default_kept"),
            (0.15, "tab:orange", "tuned", "tuned_kept"),
        ):
            drawn = [(y, getattr(e, side)) for y, e in enumerate(entries) if getattr(e, side)]
            means: list[Estimate] = [found.mean for _, found in drawn]
            axes.errorbar(
                [m.value for m in means],
                [y + shift for y, _ in drawn],
                xerr=[[m.value - m.low for m in means], [m.high - m.value for m in means]],
                fmt="o", markersize=4, color=color, label=label, elinewidth=1,
            )  # fmt: skip
        for name, found in self.beside.items():
            axes.axvline(found.mean.value, color="gray", linewidth=0.8, linestyle=":")
            axes.annotate(name, (found.mean.value, len(entries) - 0.4), rotation=90, fontsize=7,
                          ha="right", va="top", color="gray")  # fmt: skip
        axes.set_yticks(range(len(entries)), [entry.default.label for entry in entries], fontsize=8)
        axes.set_xlabel("share of the single adapters' scores, mean over the tasks, 95 % interval")
        axes.grid(axis="x", alpha=0.3)
        axes.legend(loc="lower right")
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


def mean_scores(runs: Sequence[Points]) -> dict[str, float]:
    """Scores by task, the mean over the seeds."""
    return {task: fmean(fmean(run[task]) for run in runs) for task in runs[0]}


def _both(found: Kept) -> str:
    """The mean and the worst in words."""
    return f"{found.mean} on average and {found.worst} on the worst task"


def _settings(merge: Merge, found: Kept) -> tuple[str, str, str]:
    weights = [f"{weight * merge.scale:.2f}".rstrip("0").rstrip(".") for weight in merge.weights]
    shown = weights[0] if len(set(weights)) == 1 else ", ".join(weights)
    return shown, "" if merge.density is None else f"{merge.density:g}", str(found.seeds)


def _tuned_first(entry: Entry) -> float:
    return -entry.tuned_kept.mean.value if entry.tuned_kept else 0.0


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def _rule(columns: int) -> str:
    return "|" + " --- |" * columns


_HEAD = """<!-- Generated by benchmarks/merge_quality.py: run it again, do not edit. -->
# What a merge keeps of its adapters

On each of four tasks ({tasks}) an adapter is trained on
SmolLM2-135M-Instruct, for each of {count} seeds ({seeds}): LoRA of rank 16 on all linear layers
(`benchmarks/quality/adapters.py`). The four adapters of a seed are merged into one. It answers
{rows} test rows of each task; its score is divided by that of the task's own adapter on the same
rows. `spoken` has answers of several words and is scored by chrF, the others by exact match. The
tasks are hard to merge: all prompts look alike, and `american` and `spelling`, which both ask for
one word that resembles the one given, are strong together where the other two ask for something
else.

A figure is the mean over the seeds, with a 95 % bootstrap interval over rows and seeds; "worst
task" is the lowest of the four shares. Intervals this wide hide small differences: read the table
for large ones.

![Shares of the single adapters' scores](merge-quality.svg)

Made on {machine} by

```console
$ python benchmarks/merge_quality.py
```

which takes hours there, keeps what is done in `.quality`, and goes on from it. `--stage`,
`--rules`, `--spaces` and `--seeds` narrow it: this page was made in parts, and a row says how many
seeds it was scored on. `--stage table` writes the page anew. The searches behind the tuned rows
were run in parts as well, some of them cut short, and their choices put together in `tuned.json`:
a whole run may choose otherwise. An earlier set of adapters, all but one trained at higher learning
rates, is not shown: there too `regmean` kept nearly everything and the other rules far less.
"""

_DEFAULTS = """What a rule does in a space when nothing else is given. Bold is what it does when no
space is given either. The default spaces of ties and tsv were chosen on rows that are not in this
table, those of the other rules from this table's first seed: their lead over other spaces is a
little flattered."""

_TUNED = """Scale, weights and density were chosen on {validation} rows a task of the training
files that no adapter was trained on, with the first seed's adapters, and are used for all seeds.
The choice maximises the mean of the mean share and the worst one: first the scale of the result,
then the density; then, for a few, each adapter's weight by itself. Where the defaults were the best
that was tried, they stand here again. A rule that is missing here was not tuned."""
