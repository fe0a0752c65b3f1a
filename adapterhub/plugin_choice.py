"""Which plugins of others are loaded: what `adz plugins disable` wrote, and `ADZ_PLUGINS`.

`$ADZ_HOME/disabled-plugins` has the name of a distribution a line. `ADZ_PLUGINS=a,b` loads these
distributions only, beside our own plugins; an empty value loads none. It wins over the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from adapterhub.entry_points import OWN_DISTRIBUTION, EntryPoint
from adapterhub.errors import unknown_name, usage_error

VARIABLE = "ADZ_PLUGINS"


def why_disabled(entries: Iterable[EntryPoint]) -> dict[str, str]:
    """The distributions among these that are not to be loaded, and why."""
    foreign = {e.distribution for e in entries if e.distribution != OWN_DISTRIBUTION}
    if not foreign:
        return {}
    chosen = os.environ.get(VARIABLE)
    if chosen is not None:
        wanted = {_plain(name) for name in chosen.split(",") if name.strip()}
        reason = f"{VARIABLE} does not name it"
        return {name: reason for name in foreign if _plain(name) not in wanted}
    reason = "adz plugins enable loads it again"
    disabled = {_plain(name) for name in _read()}
    return {name: reason for name in foreign if _plain(name) in disabled}


def not_installed(entries: Iterable[EntryPoint]) -> list[str]:
    """What `ADZ_PLUGINS` names and nothing here is called."""
    known = {_plain(entry.distribution) for entry in entries}
    chosen = os.environ.get(VARIABLE, "").split(",")
    return [name.strip() for name in chosen if name.strip() and _plain(name) not in known]


def disable(name: str, entries: Iterable[EntryPoint]) -> str:
    """Load the distribution no more; returns its name. Raises a usage error for our own and for
    one that brings no plugin."""
    known = {e.distribution for e in entries}
    if _plain(name) == OWN_DISTRIBUTION:
        raise usage_error("adapterhub's own plugins cannot be disabled")
    found = next((d for d in known if _plain(d) == _plain(name)), None)
    if found is None:
        raise unknown_name("distribution with plugins", name, known - {OWN_DISTRIBUTION})
    _write({*_read(), found})
    return found


def enable(name: str) -> str:
    """Load the distribution again; returns its name. Raises a usage error where it is not
    disabled."""
    disabled = _read()
    found = next((d for d in disabled if _plain(d) == _plain(name)), None)
    if found is None:
        raise unknown_name("disabled distribution", name, disabled)
    _write(disabled - {found})
    return found


def _plain(name: str) -> str:
    # `a-b`, `a.b` and `A_B` are one distribution.
    return name.strip().lower().replace("_", "-").replace(".", "-")


def _file() -> Path:
    from adapterhub.home import adz_home

    return adz_home() / "disabled-plugins"


def _read() -> set[str]:
    try:
        return set(_file().read_text(encoding="utf-8").split())
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _write(names: set[str]) -> None:
    file = _file()
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    unfinished.write_text("".join(f"{name}\n" for name in sorted(names)), encoding="utf-8")
    unfinished.replace(file)
