"""What a remote holds: names, versions, aliases and sizes, without reading any adapter's files."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from adapterhub.errors import AdzError
from adapterhub.exchange.bounds import Bounds
from adapterhub.exchange.found import Found, find_version
from adapterhub.exchange.parallel import run_parallel
from adapterhub.exchange.wanted import is_tag
from adapterhub.manifest import Manifest
from adapterhub.protocols import Listing, Progress, Remote
from adapterhub.reference import check_name

_GLOB = frozenset("*?[")
# A listing refuses nothing for its size: `adz pull` asks for that.
_BOUNDS = Bounds(version_bytes=1 << 62, workers=8)


def list_remote(
    remote: Remote,
    progress: Progress,
    *,
    name: str | None = None,
    every: bool = False,
    sort: str = "name",
    reverse: bool = False,
    limit: int | None = None,
    offset: int = 0,
    **wanted: str | None,
) -> list[Listing]:
    """The highest version of each name at a remote, or with `every` all versions.

    name: a pattern such as `team/*`; one without `*` is looked up, also where the remote cannot
    list its names. wanted: base, method, rule and alias, each by the name that is recorded. A
    version whose manifest is damaged is left out, with a warning. Raises AdzError where the
    remote cannot list.
    """
    names = sorted(_names(remote, name), reverse=reverse)
    end = None if limit is None else offset + limit
    # Two requests a name, so that a page costs a page.
    is_page = sort == "name" and not every and not any(wanted.values())
    names = names[offset:end] if is_page else names
    with progress.task(f"listing {remote.url}", len(names)) as task:
        jobs = [partial(_of_name, remote, one, every, progress, task.advance) for one in names]
        lists = run_parallel(jobs, workers=_BOUNDS.workers, stop=threading.Event())
    found = [one for listed in lists for one in listed if _matches(one, wanted)]
    if is_page:
        return found
    found.sort(key=lambda one: (one.name, one.version), reverse=reverse and sort == "name")
    if sort != "name":
        found.sort(key=lambda one: getattr(one, sort) or 0, reverse=reverse)
    return found[offset:end]


def _names(remote: Remote, pattern: str | None) -> Sequence[str]:
    if pattern is not None and not _GLOB & set(pattern):
        return [check_name(pattern)]
    try:
        names = remote.names()
    except AdzError as error:
        hint = "adz ls --remote URL --name NAME lists the versions of one adapter"
        raise AdzError(error.message, error.hint or hint, exit_code=error.exit_code) from error
    return [one for one in names if pattern is None or fnmatchcase(one, pattern)]


def _of_name(
    remote: Remote, name: str, every: bool, progress: Progress, advance: Any
) -> list[Listing]:
    tags = sorted(tag for tag in set(remote.tags(name)) if is_tag(tag))
    numbers = sorted((int(tag) for tag in tags if tag.isdigit()), reverse=True)
    aliases = {}
    for tag in (tag for tag in tags if not tag.isdigit()):
        if (version := _find(remote, name, tag, progress)) is not None:
            aliases[tag] = version.manifest.version
    found = []
    for number in numbers:
        version = _find(remote, name, str(number), progress)
        if version is not None:
            found.append(_listing(version.manifest, len(numbers), aliases))
            if not every:
                break
    advance(1, name)
    return found


def _find(remote: Remote, name: str, tag: str, progress: Progress) -> Found | None:
    try:
        return find_version(remote, name, tag, _BOUNDS)
    except AdzError as error:
        progress.warn(f"{name}@{tag} is left out: {error.message}")
        return None


def _listing(manifest: Manifest, versions: int, aliases: dict[str, int]) -> Listing:
    rank, rule = manifest.adapter.get("rank"), manifest.recipe.get("rule")
    return Listing(
        name=manifest.name,
        version=manifest.version,
        versions=versions,
        aliases=aliases,
        method=manifest.method,
        made_by=manifest.made_by,
        rule=rule if manifest.made_by == "merge" and isinstance(rule, str) else None,
        rank=rank if isinstance(rank, int) else None,
        base=manifest.base.name,
        size=sum(record.size for record in manifest.files.values()),
        created=manifest.created,
    )


def _matches(one: Listing, wanted: dict[str, str | None]) -> bool:
    alias = wanted.get("alias")
    if alias is not None and alias not in one.aliases:
        return False
    return all(
        value is None or getattr(one, key) == value
        for key, value in wanted.items()
        if key != "alias"
    )
