"""What is checked of a plugin before its components are used."""

from __future__ import annotations

import operator as compare
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from adapterhub import __version__, specs
from adapterhub.entry_points import OWN_DISTRIBUTION, EntryPoint

if TYPE_CHECKING:
    import pluggy

# A merge rule is also a flag of `adz merge`, so it may not be called like one of its options.
# A test compares this with the command.
MERGE_OPTIONS = frozenset(
    {
        "base",
        "compat",
        "config",
        "density",
        "dry-run",
        "help",
        "json",
        "limit",
        "metric",
        "minutes",
        "name",
        "option",
        "out",
        "rank",
        "round-rank",
        "rule",
        "scale",
        "seed",
        "space",
        "test",
        "trials",
        "tune",
        "weights",
        "workers",
    }
)


_RELEASE = re.compile(r"\d+(?:\.\d+)*")
_CLAUSE = re.compile(r"(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)")
_PLAIN = re.compile(
    rf"{OWN_DISTRIBUTION}\s*\(?(?P<clauses>{_CLAUSE.pattern}(?:\s*,\s*{_CLAUSE.pattern})*)?\)?",
    re.IGNORECASE,
)
_COMPARE = {
    ">=": compare.ge, "<=": compare.le, "==": compare.eq,
    "!=": compare.ne, ">": compare.gt, "<": compare.lt,
}  # fmt: skip


def incompatibility(entry: EntryPoint) -> str | None:
    """Why the plugin's distribution refuses this version of adapterhub, if it does."""
    if entry.distribution == OWN_DISTRIBUTION:
        return None
    for text in entry.requires:
        if not text.lower().startswith(OWN_DISTRIBUTION):
            continue
        if (known := plain_answer(text, __version__)) is not None:
            if not known:
                return f"it needs {text}, this is {__version__}"
            continue
        # packaging takes as long to import as twenty plugins.
        from packaging.requirements import Requirement

        wanted = Requirement(text)
        applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if wanted.name.lower() != OWN_DISTRIBUTION or not applies:
            continue
        if not wanted.specifier.contains(__version__, prereleases=True):
            return f"it needs adapterhub{wanted.specifier}, this is {__version__}"
    return None


def plain_answer(requirement: str, version: str) -> bool | None:
    """Whether a version satisfies `adapterhub>=0.1,<1` and the like; None for what is less
    plain, such as markers, extras, `~=` or a pre-release: there packaging decides."""
    match = _PLAIN.fullmatch(requirement.strip())
    if match is None or not _RELEASE.fullmatch(version):
        return None
    own = _release(version)
    return all(
        _COMPARE[operator](own, _release(wanted))
        for operator, wanted in _CLAUSE.findall(match["clauses"] or "")
    )


def _release(text: str) -> tuple[int, ...]:
    # 1.0 and 1.0.0 are one version.
    return tuple(map(int, re.sub(r"(\.0+)+$", "", text).split(".")))


def check_hooks(plugin: object) -> None:
    """Raise when a hook of the plugin is misspelt or lacks its marker: it would never run."""
    from inspect import isroutine

    from adapterhub import hookspecs

    known = [name for name in dir(hookspecs) if name.startswith("adapterhub_")]
    for name in dir(plugin):
        function = getattr(plugin, name, None)
        marked = getattr(function, f"{hookspecs.PROJECT}_impl", None) is not None
        if name in known and isroutine(function) and not marked:
            raise TypeError(f"{name} lacks @hookimpl")
        if marked and name not in known:
            from difflib import get_close_matches

            near = get_close_matches(name, known, n=1)
            raise TypeError(
                f"there is no hook {name}" + (f", did you mean {near[0]}?" if near else "")
            )


def register(manager: pluggy.PluginManager, plugin: object, key: str) -> list[str]:
    """Register a plugin; a line for each deprecated hook or argument that it uses."""
    import warnings

    from adapterhub.hookspecs import HookDeprecationWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        manager.register(plugin, name=key)
    # Whatever else is told meanwhile, of a socket that nobody closed say, is not of this plugin.
    told = [w.message for w in caught if isinstance(w.message, HookDeprecationWarning)]
    return [" ".join(str(message).split()) for message in told]


def check_component(component: object, kind: type[specs.Component], hook: str) -> None:
    """Raise when a hook returned something else than its descriptor, or a refused name."""
    if type(component) is not kind:
        raise TypeError(f"{hook} returns specs.{kind.__name__}, this is {type(component).__name__}")
    if kind is specs.MergeRule and component.name in MERGE_OPTIONS:
        raise ValueError(f"the rule {component.name!r} is named like an option of adz merge")


def deprecated_fields(component: specs.Component) -> Iterator[str]:
    """A line for each deprecated field that a descriptor sets."""
    from dataclasses import fields

    from adapterhub.hookspecs import HookDeprecationWarning

    for one in fields(component):
        told = one.metadata.get(specs.DEPRECATED)
        if told and getattr(component, one.name) != one.default:
            name = f"{one.name} of specs.{type(component).__name__} ({component.name})"
            yield str(HookDeprecationWarning(name, **told))


def one_line(error: BaseException) -> str:
    """The error's class and message without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())
