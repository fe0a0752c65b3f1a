"""What plugins offer, remembered, so that a plugin is not imported before it is used.

A descriptor is data. It is read from the plugin once, and again when a file of the plugin's
package, its version or our own hooks changed. Hooks that fail are asked at each start.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from adapterhub import __version__

if TYPE_CHECKING:
    from adapterhub import specs
    from adapterhub.entry_points import EntryPoint

# A package of more files is not remembered: to look at them takes as long as to import it.
_MOST_FILES = 500
_TUPLE_OF_VARIANTS = "compat"


class Remembered(NamedTuple):
    """The hooks that a plugin implements, and its components."""

    hooks: list[str]
    components: list[specs.Component]


class PluginCache:
    """A file in the user's cache folder, one for each environment. A broken one counts as empty,
    and one that cannot be written is left."""

    def __init__(self) -> None:
        self._path = _cache_file()
        self._stamp = f"{__version__} {_state(os.path.dirname(__file__), deep=False)}"  # noqa: PTH120
        self._entries = self._read()
        self._changed = False

    def get(self, entry: EntryPoint) -> Remembered | None:
        """What the entry offered, if nothing changed since."""
        known = self._known(entry)
        if known is None:
            return None
        try:
            return Remembered(known["hooks"], [_component(v) for v in known["components"]])
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def command_summaries(self, entries: Iterable[EntryPoint]) -> dict[str, str] | None:
        """The commands of these plugins, name -> summary; None where one is not remembered.

        For `adz --help`, which has no time to make descriptors.
        """
        found: dict[str, str] = {}
        for entry in entries:
            known = self._known(entry)
            if known is None:
                return None
            for values in known["components"]:
                if values["class"] == "Command":
                    found.setdefault(values["name"], values["summary"])
        return found

    def _known(self, entry: EntryPoint) -> Any:
        known = self._entries.get(_key(entry))
        return known if known and known.get("state") == _state_of(entry) else None

    def put(
        self, entry: EntryPoint, hooks: Sequence[str], components: Sequence[specs.Component]
    ) -> None:
        """Remember what the entry offers, where its files can be told."""
        state = _state_of(entry)
        if state is None:
            return
        values = [_values(component) for component in components]
        self._entries[_key(entry)] = {"state": state, "hooks": list(hooks), "components": values}
        self._changed = True

    def save(self) -> None:
        """Write what was learnt."""
        if not self._changed:
            return
        self._changed = False
        unfinished = f"{self._path}.{os.getpid()}"
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)  # noqa: PTH103, PTH120
            with open(unfinished, "w", encoding="utf-8") as file:  # noqa: PTH123
                json.dump({"stamp": self._stamp, "entries": self._entries}, file)
            os.replace(unfinished, self._path)  # noqa: PTH105
        except OSError:
            return

    def _read(self) -> dict[str, Any]:
        try:
            with open(self._path, encoding="utf-8") as file:  # noqa: PTH123
                stored = json.load(file)
            return dict(stored["entries"]) if stored["stamp"] == self._stamp else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def _cache_file() -> str:
    # As platformdirs has it on Linux, without its import.
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    return f"{folder}/adapterhub/plugins-{zlib.crc32(sys.prefix.encode()):08x}.json"


def _key(entry: EntryPoint) -> str:
    parts = (entry.distribution, entry.version, entry.name, entry.value, *entry.requires)
    return "\0".join(parts)


def _state_of(entry: EntryPoint) -> str | None:
    """The files of the package that holds the plugin's module; None where they are not found."""
    package, *rest = entry.value.partition(":")[0].split(".")
    for folder in sys.path:
        root = f"{folder or os.curdir}/{package}"
        if os.path.isdir(root):  # noqa: PTH112
            return _state(root) if rest else _state(root, deep=False)
        if not rest and os.path.isfile(f"{root}.py"):  # noqa: PTH113
            found = os.stat(f"{root}.py")  # noqa: PTH116
            return f"{root} {found.st_mtime_ns} {found.st_size}"
    return None


def _state(root: str, *, deep: bool = True) -> str | None:
    """Where the Python files are, how many, how large and how new; None for too many."""
    count = size = newest = 0
    for folder, folders, names in os.walk(root):
        folders[:] = [f for f in folders if deep and f != "__pycache__"]
        for name in names:
            if name.endswith(".py"):
                found = os.stat(f"{folder}/{name}")  # noqa: PTH116
                count, size = count + 1, size + found.st_size
                newest = max(newest, found.st_mtime_ns)
        if count > _MOST_FILES:
            return None
    return f"{root} {count} {size} {newest}"


def _values(component: specs.Component) -> dict[str, Any]:
    from dataclasses import asdict

    return {"class": type(component).__name__, **asdict(component)}


def _component(values: dict[str, Any]) -> specs.Component:
    given: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    if given.get(_TUPLE_OF_VARIANTS):
        given[_TUPLE_OF_VARIANTS] = tuple(_variant(v) for v in given[_TUPLE_OF_VARIANTS])
    from adapterhub import specs

    made: specs.Component = getattr(specs, given.pop("class"))(**given)
    return made


def _variant(values: dict[str, Any]) -> specs.Variant:
    from adapterhub import specs

    given: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    return specs.Variant(**given)
