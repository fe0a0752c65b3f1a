"""The one place where commands print: results on stdout, the rest on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class Result(Protocol):
    """What a command did, as a value for `--json`."""

    def as_dict(self) -> dict[str, Any]:
        """Of what JSON knows."""


R = TypeVar("R", bound=Result)


def json_option(function: F) -> F:
    """Add `--json` to a command (as `as_json`)."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(
        function
    )


def print_result(value: Any, text: str, *, as_json: bool) -> None:
    """Print a result on stdout: `value` as JSON, or `text` for people."""
    if as_json:
        click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
    elif text:
        click.echo(text)


def print_each(results: Iterable[R], describe: Callable[[R], str], *, as_json: bool) -> None:
    """Print results as they come; as JSON all of them at the end, in one list."""
    values = []
    for result in results:
        values.append(result.as_dict())
        if not as_json:
            click.echo(describe(result))
    if as_json:
        print_result(values, "", as_json=True)


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """An aligned table as plain text. Columns that hold numbers only are aligned right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max([len(h), *(len(row[i]) for row in cells)]) for i, h in enumerate(header)]
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        for i in range(len(header))
    ]
    lines = []
    for row in [list(header), *cells]:
        parts = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def format_size(size: float) -> str:
    """Bytes for people: `543 B`, `1.2 MB` (a MB is 1,000,000 bytes)."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"


def format_weights(weights: Mapping[int, int]) -> str:
    """The versions of a split alias and their weights, as 'adz tag --split' takes them."""
    return ",".join(f"{number}:{weight}" for number, weight in weights.items())


class _Bar:
    def __init__(self, advance: Callable[[float, str], None]) -> None:
        self._advance = advance

    def advance(self, amount: float = 1, note: str = "") -> None:
        self._advance(amount, note)


class TerminalProgress:
    """A `protocols.Progress` on stderr: bars on a terminal, a line at start and end elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    @contextmanager
    def task(self, description: str, total: float | None) -> Iterator[_Bar]:
        """A bar with time left; without a terminal one line when the task begins."""
        if not self._live:
            self.note(description)
            yield _Bar(lambda amount, note: None)
            return
        # rich costs 60 ms to import, so only a bar that is drawn pays for it.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True, no_color=bool(os.environ.get("NO_COLOR")))
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task(description, total=total, note="")

            def advance(amount: float, note: str) -> None:
                fields = {"note": note} if note else {}
                progress.update(bar, advance=amount, **fields)  # type: ignore[arg-type]

            yield _Bar(advance)

    def note(self, message: str) -> None:
        """One line on stderr."""
        click.echo(message, err=True)

    def warn(self, message: str) -> None:
        """One line on stderr that stands out."""
        click.echo(f"warning: {message}", err=True)
