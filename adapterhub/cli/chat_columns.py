"""Answers of several models side by side, on a terminal that is wide enough."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING

from adapterhub.errors import AdzError
from adapterhub.serve.client import Answer, join
from adapterhub.serve.conversation import Conversation, Side

if TYPE_CHECKING:
    from rich.table import Table

_NARROWEST = 36
_REFRESHES_A_SECOND = 10


def fits(sides: int) -> bool:
    """Whether so many columns stand side by side on this terminal."""
    columns = shutil.get_terminal_size().columns
    return sides > 1 and sys.stdout.isatty() and columns >= sides * _NARROWEST


@dataclass(slots=True)
class _Column:
    side: Side
    title: str
    text: str = ""
    answer: Answer | None = None


def show(conversation: Conversation, text: str) -> list[Answer]:
    """Ask all sides at once and draw the answers as they grow. Ctrl-C ends the answers."""
    from rich.console import Console
    from rich.live import Live

    columns = [_Column(side, side.reference) for side in conversation.sides]
    stop = Event()
    threads = [
        Thread(target=_read, args=(conversation, column, text, stop), daemon=True)
        for column in columns
    ]
    for thread in threads:
        thread.start()
    with Live(console=Console(), refresh_per_second=_REFRESHES_A_SECOND) as live:
        try:
            while any(thread.is_alive() for thread in threads):
                threads[0].join(1 / _REFRESHES_A_SECOND)
                live.update(_table(columns))
                stop.wait(1 / _REFRESHES_A_SECOND)
        except KeyboardInterrupt:
            stop.set()
            for thread in threads:
                thread.join()
        live.update(_table(columns))
    return [column.answer for column in columns if column.answer]


def _read(conversation: Conversation, column: _Column, text: str, stop: Event) -> None:
    try:
        column.answer = join(_watched(conversation, column, text, stop))
    except AdzError as error:
        column.text = f"error: {error}"


def _watched(
    conversation: Conversation, column: _Column, text: str, stop: Event
) -> Iterator[Answer]:
    pieces = conversation.ask(column.side, text)
    for piece in pieces:
        column.text += piece.text
        column.title = piece.model or column.title
        yield piece
        if stop.is_set():
            pieces.close()
            return


def _table(columns: list[_Column]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True)
    for column in columns:
        table.add_column(Text(column.title), ratio=1, overflow="fold")
    # Text, not markup: a model writes brackets too.
    table.add_row(*(Text(column.text) for column in columns))
    return table
