"""`adz eval`: score adapters beside their base."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import TerminalProgress, format_table, json_option, print_result
from adapterhub.cli.trust import ca_option

if TYPE_CHECKING:
    from adapterhub.evaluate.run import Score

_FILE = click.Path(path_type=Path)


@click.command(short_help="Score adapters beside their base.")
@click.argument("references", nargs=-1, metavar="REF...")
@click.option("--base", help="The base; needed only where the references leave it open.")
@click.option(
    "--data",
    type=_FILE,
    multiple=True,
    required=True,
    help="Rows to answer; a column of the table for each file.",
)
@click.option("--metric", default="exact_match", show_default=True, help="How answers are scored.")
@click.option(
    "--shots", type=click.IntRange(0), default=0, help="Show the base this many examples first."
)
@click.option(
    "--shots-from",
    type=_FILE,
    multiple=True,
    help="Where the examples come from, one for each --data; else rows that are not evaluated.",
)
@click.option("--limit", type=click.IntRange(1), help="Rows of each file, always the same ones.")
@click.option("--url", help="Ask a server, such as http://127.0.0.1:8000/v1.")
@click.option(
    "--api-key",
    envvar=["ADZ_EVAL_API_KEY", "ADZ_API_KEY", "OPENAI_API_KEY"],
    help="The server's key.",
)
@ca_option
@click.option(
    "--max-tokens",
    type=click.IntRange(1),
    help="Longest answer; by default 8 more than the longest reference.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    default=16,
    show_default=True,
    help="Prompts that are answered together.",
)
@click.option("--no-attest", is_flag=True, help="Do not record the scores with the versions.")
@json_option
def command(
    references: tuple[str, ...],
    base: str | None,
    data: tuple[Path, ...],
    metric: str,
    shots: int,
    shots_from: tuple[Path, ...],
    limit: int | None,
    url: str | None,
    api_key: str | None,
    max_tokens: int | None,
    batch_size: int,
    no_attest: bool,
    as_json: bool,
) -> None:
    """Score adapter versions, and always their base beside them.

    Answers are greedy. Each score stands with its 95 % interval; the scores become
    attestations of the versions (see adz show).
    """
    from adapterhub.derived.local import with_merges_made
    from adapterhub.evaluate.run import EvaluationSettings, evaluate
    from adapterhub.plugins import open_registry

    registry, progress = open_registry(), TerminalProgress()
    settings = EvaluationSettings(
        references=with_merges_made(registry, references, progress),
        data=data,
        base=base,
        metric=metric,
        shots=shots,
        shots_from=shots_from,
        limit=limit,
        url=url,
        api_key=api_key,
        max_tokens=max_tokens,
        batch_size=batch_size,
        attest=not no_attest,
    )
    scores = evaluate(registry, settings, progress)
    print_result([asdict(score) for score in scores], _table(scores), as_json=as_json)


def _table(scores: list[Score]) -> str:
    tasks = list(dict.fromkeys(score.task for score in scores))
    subjects = list(dict.fromkeys(score.subject for score in scores))
    cells = {(score.subject, score.task): score for score in scores}
    rows = []
    for subject in subjects:
        own = [cells[subject, task] for task in tasks]
        label = f"{subject} ({own[0].shots}-shot)" if own[0].shots else subject
        rows.append((label, *map(_cell, own)))
    counts = ", ".join(str(n) for n in sorted({score.n for score in scores}))
    header = (f"{scores[0].metric} % [95 %], n = {counts}", *tasks)
    return format_table(header, rows)


def _cell(score: Score) -> str:
    return f"{score.score:6.1%} [{score.low:.1%}, {score.high:.1%}]".replace("%", "")
