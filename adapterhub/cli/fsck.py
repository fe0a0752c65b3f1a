"""`adz fsck`: verify every stored byte and name, and repair what is damaged."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from adapterhub.cli.output import TerminalProgress, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.protocols import Finding, Repaired

_NO_URL = "-"


@click.command(short_help="Verify every file, manifest and alias.")
@click.option(
    "--subset",
    default="1/1",
    metavar="N/M",
    help="Only the N-th of M equal shares of the files, such as 3/7 on a Wednesday.",
)
@click.option("--resume", is_flag=True, help="Go on where the last check broke off.")
@click.option("--no-bases", is_flag=True, help="Do not hash the base models.")
@click.option(
    "--repair",
    "source",
    is_flag=False,
    flag_value=_NO_URL,
    metavar="[URL]",
    help="Repair what is damaged; with a URL or a directory, fetch from there what is lost here.",
)
@json_option
def command(subset: str, resume: bool, no_bases: bool, source: str | None, as_json: bool) -> int:
    """Verify every stored byte and name; exit with 3 when something is wrong.

    Names (versions, aliases, history) are verified in full every time: the database against its
    own history and against the journal names.jsonl. Files, views and bases are hashed.

    --repair first uses what is here. A damaged file is put back from another copy, a damaged view
    is deleted (it is made anew when it is wanted), a damaged journal is written from the database
    and a damaged database from the journal; the old one is kept beside it. Where both are lost,
    versions are found again by their manifests, but aliases, bases and removals are not. A missing
    database is made from the journal by any command. With a URL, files that have no other copy
    are fetched from that remote by their digest.
    """
    from adapterhub.errors import EXIT_OK, EXIT_VERIFICATION
    from adapterhub.exchange.remotes import open_remote
    from adapterhub.exchange.repair import repair
    from adapterhub.plugins import open_registry

    share = _share(subset)
    registry, progress = open_registry(), TerminalProgress()
    remote = open_remote(source) if source not in (None, _NO_URL) else None
    findings = list(
        registry.check(bases=not no_bases, share=share, resume=resume, progress=progress)
    )
    done: list[Repaired] = []
    if source is not None and findings:
        done, findings = repair(registry, findings, remote, progress)
    value = {"findings": [asdict(f) for f in findings], "repaired": [asdict(r) for r in done]}
    print_result(value, _text(findings, done), as_json=as_json)
    return EXIT_VERIFICATION if findings else EXIT_OK


def _share(subset: str) -> tuple[int, int]:
    from adapterhub.errors import usage_error

    number, _, count = subset.partition("/")
    if number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
        return int(number), int(count)
    raise usage_error(f"--subset {subset!r} is not N/M", "give such as 2/7: the second of seven")


def _text(findings: list[Finding], done: list[Repaired]) -> str:
    lines = [f"repaired: {repaired.subject}: {repaired.how}" for repaired in done]
    for finding in findings:
        needed = f" (needed by {', '.join(finding.versions)})" if finding.versions else ""
        lines.append(f"{finding.subject}: {finding.problem}{needed}")
    if not findings:
        lines.append("everything is as it was stored")
    return "\n".join(lines)
