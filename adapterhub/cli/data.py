"""`adz data`: look at a data set before training on it, and write it in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.data.check import Checked

format_option = click.option(
    "--format", "format_name", help="The rows' format; recognised when not given."
)
column_option = click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="OURS=THEIRS",
    help="Which column stands for one of the format's: prompt=question.",
)


@click.group(short_help="Check a data set, or write it in another format.")
def command() -> None:
    """Check a data set, or write it in another format.

    A data set is a .jsonl, .json, .csv, .tsv or .parquet file, a folder that Hugging Face's
    datasets saved, or hub:owner/name.
    """


@command.command("check", short_help="Read every row and show what training would see.")
@click.argument("source", type=click.Path(path_type=Path))
@format_option
@column_option
@click.option("--holdout", type=click.FloatRange(0, 1, max_open=True), default=0.05,
              show_default=True, help="The share of prompts that would be held out.")  # fmt: skip
@json_option
def check(
    source: Path,
    format_name: str | None,
    columns: tuple[str, ...],
    holdout: float,
    as_json: bool,
) -> None:
    """Read every row of SOURCE and show its format, its first row and what is odd in it."""
    from adapterhub.data.check import check_data

    checked = check_data(source, format_name, columns=_columns(columns), holdout=holdout)
    print_result(checked.as_dict(), _describe(checked), as_json=as_json)


@command.command("convert", short_help="Write a data set in another format or kind of file.")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--to", "to_format", help="The format to write; the source's when not given.")
@format_option
@column_option
@json_option
def convert(
    source: Path,
    target: Path,
    to_format: str | None,
    format_name: str | None,
    columns: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write SOURCE to the file TARGET, whose name says which kind of file it is.

    What the other format cannot hold is an error that names the row; nothing is written then.
    """
    from adapterhub.data.convert import convert_data

    progress = TerminalProgress()
    done = convert_data(source, target, to_format, format_name, columns=_columns(columns))
    progress.note(f"read as {done['from']}")
    text = f"{target}  {done['rows']} rows ({done['to']})"
    print_result(done, text, as_json=as_json)


def _columns(given: tuple[str, ...]) -> dict[str, str]:
    from adapterhub.errors import usage_error

    pairs = {}
    for item in given:
        ours, separator, theirs = item.partition("=")
        if not (separator and ours and theirs):
            raise usage_error(
                f"{item!r} is not OURS=THEIRS", "for example --column prompt=question"
            )
        pairs[ours] = theirs
    return pairs


def _describe(checked: Checked) -> str:
    facts = checked.as_dict()
    lines = [f"{name:<10} {value}" for name, value in _facts(facts)]
    return "\n".join([*lines, "the first row:", checked.first, *_warnings(facts)])


def _facts(facts: dict[str, Any]) -> list[tuple[str, str]]:
    kinds = {
        "supervised": "answers to learn",
        "preference": "pairs of a better and a worse answer",
        "unpaired_preference": "answers judged good or bad",
        "prompt": "questions alone",
    }
    return [
        ("file", facts["file"]),
        ("sha256", facts["sha256"]),
        ("format", f"{facts['format']} ({kinds[facts['kind']]}); {facts['recognised']}"),
        ("rows", f"{facts['rows']:,}, {facts['holdout_rows']:,} of them held out"),
        ("characters", f"{facts['characters']:,}, the longest row {facts['longest']:,}"),
        ("objectives", ", ".join(facts["objectives"]) or "none that is installed"),
    ]


def _warnings(facts: dict[str, Any]) -> list[str]:
    lines = []
    if facts["duplicates"]:
        lines.append(f"warning: {facts['duplicates']:,} rows are exact copies of earlier ones")
    if facts["contradictions"]:
        lines.append(
            f"warning: {facts['contradictions']:,} questions are asked again with another answer"
        )
    return lines
