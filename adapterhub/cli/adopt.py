"""`adz adopt`: take over the adapters that lie around on a machine."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import (
    TerminalProgress,
    format_size,
    format_table,
    json_option,
    print_result,
)

if TYPE_CHECKING:
    from adapterhub.adopt.found import Found, FoundBase, Survey
    from adapterhub.adopt.pipeline import Adopted

_LEVELS = ("clean", "held", "error")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@click.command(short_help="Find and import the adapters below folders.")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--base", help="A known base: what fits it belongs to it.")
@click.option("--yes", is_flag=True, help="Import all that are clean, and add their bases.")
@click.option("--dry-run", is_flag=True, help="Only report.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    folders: tuple[Path, ...],
    base: str | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Find every adapter below FOLDERS, infer its base, say what is wrong, and import a copy.

    Names and shapes decide which base fits, of those that are known and those that lie below
    the folders too. A terminal asks what to import; --yes imports what has no fault.
    FOLDERS are not changed.
    """
    from adapterhub.adopt.pipeline import adopt, clean
    from adapterhub.adopt.survey import survey
    from adapterhub.plugins import open_registry

    registry, progress = open_registry(), TerminalProgress()
    found = survey(registry, folders, base, progress)
    value: dict[str, Any] = found.as_dict()
    if not as_json:
        click.echo("\n\n".join(_sections(found)))
    chosen = clean(found) if yes else []
    if not (yes or dry_run or as_json) and sys.stdin.isatty() and sys.stdout.isatty():
        chosen = _ask(found)
    done = adopt(registry, found, chosen, progress) if chosen and not dry_run else []
    if as_json:
        print_result({**value, "adopted": [one.as_dict() for one in done]}, "", as_json=True)
    elif text := _outcome(done, found, asked=not (yes or dry_run)):
        click.echo(f"\n{text}")
    if any(one.problem for one in done):
        ctx.exit(1)


def _sections(found: Survey) -> Iterator[str]:
    if found.adapters:
        yield _table(found.adapters)
    for level, title in (
        ("note", "to know"),
        ("held", "not imported unless you name them"),
        ("error", "cannot be imported"),
    ):
        lines = list(_faults(found.adapters, level))
        if lines:
            yield "\n".join((title, *lines))
    if found.bases:
        yield "\n".join(("bases that are not known yet", *map(_base, found.bases)))
    if found.problems:
        yield "\n".join(("not looked at", *(f"  {line}" for line in found.problems)))
    counts = {level: sum(o.level == level for o in found.adapters) for level in _LEVELS}
    yield (
        f"{_count(len(found.adapters), 'adapter')} in {_count(found.folders, 'folder')}, "
        f"{found.seconds:.1f} s: "
        f"{counts['clean']} clean, {counts['held']} held, {counts['error']} cannot be imported"
    )


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


_MARKS = {"clean": "", "held": "held", "error": "no"}


def _table(adapters: Sequence[Found]) -> str:
    rows = [
        (
            number,
            one.name,
            one.method or "?",
            "" if one.rank is None else str(one.rank),
            "" if one.modules is None else str(one.modules),
            format_size(one.size),
            _guess(one),
            _MARKS[one.level],
            _short(one.directory),
        )
        for number, one in enumerate(adapters, 1)
    ]
    header = ("#", "name", "method", "rank", "modules", "size", "base", "", "folder")
    return format_table(header, rows)


def _guess(one: Found) -> str:
    words = {"hint": " (of several)", "given": " (given)", "open": "?", "none": "?"}
    return (one.base.name or "") + words.get(one.base.certainty, "")


def _faults(adapters: Sequence[Found], level: str) -> Iterator[str]:
    for number, one in enumerate(adapters, 1):
        for fault in one.faults:
            # Beside an error nothing else matters.
            if fault.level == level and (level == "error" or one.level != "error"):
                yield f"  {number}  {one.name}: {fault.text}"


def _base(base: FoundBase) -> str:
    size = format_size(base.size)
    return f"  adz base add {base.name} {base.directory}  ({base.architecture}, {size})"


def _short(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _ask(found: Survey) -> list[Found]:
    from adapterhub.adopt.pipeline import choose, clean, needed_bases
    from adapterhub.errors import AdzError

    if all(one.level == "error" for one in found.adapters):
        return []
    while True:
        answer = click.prompt(
            f"\nImport what? (all: the {len(clean(found))} clean ones, none, or numbers: 1,4-6)",
            default="none",
            err=True,
        )
        if answer.strip().lower() in ("n", "no", "none"):
            return []
        try:
            if answer.strip().lower() in ("a", "all", "y", "yes"):
                chosen = clean(found)
            else:
                chosen = choose(found, _numbers(answer))
        except AdzError as error:
            click.echo(str(error), err=True)
            continue
        bases = needed_bases(found, chosen)
        names = ", ".join(base.name for base in bases)
        if not bases or click.confirm(f"Add {names} first?", default=True, err=True):
            return chosen


def _numbers(text: str) -> list[int]:
    """`1,4-6` as numbers."""
    from adapterhub.errors import usage_error

    numbers: list[int] = []
    for part in re.split(r"[,\s]+", text.strip()):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise usage_error(f"{part!r} is no number", "answer all, none, or numbers: 1,4-6")
        first, last = int(match[1]), int(match[2] or match[1])
        numbers += [n for n in range(first, min(last, first + 10**5) + 1) if n not in numbers]
    return numbers


def _outcome(done: Sequence[Adopted], found: Survey, *, asked: bool) -> str:
    lines = [
        f"{one.version.reference}  {one.version.manifest.method}"
        if one.version
        else f"{one.found.name} was refused: {one.problem}"
        for one in done
    ]
    ready = sum(one.level == "clean" for one in found.adapters)
    if not done and asked and ready:
        lines.append(f"nothing was imported: --yes imports the {ready} that are clean")
    return "\n".join(lines)
