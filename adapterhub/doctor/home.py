"""The folder `$ADZ_HOME`: its space, its files of settings, and what unfinished work left there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from adapterhub.doctor.check import Check, wrong
from adapterhub.errors import AdzError
from adapterhub.exchange import partial
from adapterhub.home import adz_home
from adapterhub.policy import fingerprint, load_policy
from adapterhub.staging import home_staging, sweep

# Less than one adapter of a large model and the copy of it that is opened.
_LOW_BYTES = 1e9


def check_home() -> Iterator[Check]:
    """The home folder; where it is not there yet, what it will be made in."""
    home = adz_home()
    # The folder is made by the first command that writes: ask the one that is there.
    there = next(path for path in (home, *home.parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        yield wrong("home", f"{home} cannot be written", "set ADZ_HOME to another folder")
        return
    free = shutil.disk_usage(there).free
    found = f"{home}, {free / 1e9:.1f} GB free"
    if free < _LOW_BYTES:
        yield wrong("home", found, "free some space ('adz gc' helps), or move ADZ_HOME")
    else:
        yield Check("home", "ok", found)
    yield from _check_policy(home)
    yield from _check_leftovers()


def _check_policy(home: Path) -> Iterator[Check]:
    file = home / "policy.yaml"
    if not os.path.lexists(file):
        return
    try:
        policy = load_policy(home)
    except AdzError as error:
        yield wrong("policy", error.message, error.hint or f"correct {file}")
        return
    problems = [
        f"{pattern}: {problem}"
        for pattern, keys in policy.signatures.items()
        if (problem := next(filter(None, map(_key_problem, keys)), None))
    ]
    for problem in problems:
        yield wrong("policy", problem, "until it is there no such version is let in or served")
    if not problems:
        counts = f"{len(policy.signatures)} names sign, {len(policy.quotas)} have a quota"
        yield Check("policy", "ok", f"{file}: {counts}")


def _key_problem(key: Path) -> str | None:
    try:
        fingerprint(key)
    except AdzError as error:
        return error.message
    except OSError as error:
        return f"the key {key} cannot be read: {error.strerror}"
    return None


def _check_leftovers() -> Iterator[Check]:
    """What 'adz gc' would delete of broken downloads, merges and imports."""
    size = sweep(home_staging(), dry_run=True) + partial.sweep(dry_run=True)
    if size:
        yield Check("leftovers", "absent", f"{size / 1e6:.1f} MB of unfinished work", "adz gc")
