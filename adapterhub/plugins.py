"""Loading plugins, isolating the ones that fail, and knowing who provides what.

A plugin that cannot be imported, misspells a hook, raises in one or asks for another version
of adapterhub costs one line on stderr and its own components; everything else works.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import pluggy

from adapterhub import hookspecs, specs
from adapterhub.errors import AdzError, unknown_name, usage_error

if TYPE_CHECKING:
    from adapterhub import protocols

GROUP = "adapterhub.plugins"
OWN_DISTRIBUTION = "adapterhub"

KINDS: dict[type[specs.Component], tuple[str, str]] = {
    specs.Method: ("adapterhub_methods", "method"),
    specs.Quantizer: ("adapterhub_quantizers", "quantizer"),
    specs.Objective: ("adapterhub_objectives", "objective"),
    specs.Format: ("adapterhub_formats", "format"),
    specs.MergeRule: ("adapterhub_merge_rules", "merge rule"),
    specs.MergeSpace: ("adapterhub_merge_spaces", "merge space"),
    specs.Engine: ("adapterhub_engines", "engine"),
    specs.Registry: ("adapterhub_registries", "registry"),
    specs.Metric: ("adapterhub_metrics", "metric"),
    specs.Command: ("adapterhub_commands", "command"),
}
"""Each kind of component, its hook and the word for it in messages."""

# A merge rule is also a flag of `adz merge`, so it may not be called like one of its options.
# A test compares this with the command.
MERGE_OPTIONS = frozenset({
    "base", "compat", "config", "density", "dry-run", "force", "help", "json", "name", "option",
    "out", "quiet", "rank", "rule", "seed", "space", "weights", "workers",
})

C = TypeVar("C", bound=specs.Component)


@dataclass(slots=True)
class PluginRecord:
    """One entry point: where it came from and what became of it."""

    name: str
    module: str
    distribution: str
    version: str
    status: Literal["loaded", "failed", "incompatible"] = "loaded"
    problem: str = ""
    components: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Provided:
    """A component and the plugin that provides it."""

    component: specs.Component
    plugin: PluginRecord


class Plugins:
    """All plugins of this environment."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._pluggy = pluggy.PluginManager(hookspecs.PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self.records: list[PluginRecord] = []
        self._by_plugin: dict[str, PluginRecord] = {}
        self._provided: dict[type[specs.Component], list[Provided]] = {}
        for entry in sorted(metadata.entry_points(group=GROUP), key=_own_first):
            self._load(entry)

    def provided(self, kind: type[specs.Component]) -> list[Provided]:
        """Every component of a kind with its plugin, ours first, in a stable order."""
        if kind not in self._provided:
            self._provided[kind] = list(self._collect(kind))
        return self._provided[kind]

    def components(self, kind: type[C]) -> dict[str, C]:
        """Components by name. A name that two plugins provide is there once."""
        return {p.component.name: cast("C", p.component) for p in reversed(self.provided(kind))}

    def get(self, kind: type[C], name: str) -> C:
        """The component called `name`, or `distribution:name` where two plugins provide it."""
        word = KINDS[kind][1]
        distribution, _, short = name.rpartition(":")
        found = [
            p for p in self.provided(kind)
            if p.component.name == short and distribution in ("", p.plugin.distribution)
        ]
        if not found:
            raise unknown_name(word, name, (p.component.name for p in self.provided(kind)))
        if len(found) > 1:
            choices = " or ".join(f"{p.plugin.distribution}:{short}" for p in found)
            raise usage_error(f"{len(found)} plugins provide the {word} {short!r}", f"use {choices}")
        return cast("C", found[0].component)

    def load_implementation(self, component: specs.Component) -> Any:
        """Import what `impl` names; a missing requirement says what to install."""
        missing = [m for m in component.requires if not is_installed(m)]
        if missing:
            hint = component.install_hint or "install " + ", ".join(missing)
            raise AdzError(f"{component.name!r} needs {', '.join(missing)}", hint)
        return self._import(component, component.impl)

    def load_options(self, component: specs.Component) -> Any:
        """The pydantic model of the component's options, or None."""
        return self._import(component, component.config) if component.config else None

    def call_event(self, hook: str, **arguments: Any) -> None:
        """Call an event in every plugin. One that raises refuses the action (fails closed)."""
        for implementation in getattr(self._pluggy.hook, hook).get_hookimpls():
            names = implementation.argnames
            try:
                implementation.function(*(arguments[name] for name in names))
            except AdzError:
                raise
            except Exception as error:
                raise AdzError(
                    f"plugin {implementation.plugin_name} refused in {hook}: "
                    f"{type(error).__name__}: {error}"
                ) from error

    def versions_of(self, *components: specs.Component) -> dict[str, str]:
        """`{distribution: version}` of the plugins that provide these components."""
        wanted = set(components)
        return {
            p.plugin.distribution: p.plugin.version
            for kind in {type(c) for c in components}
            for p in self.provided(kind)
            if p.component in wanted
        }

    def _load(self, entry: metadata.EntryPoint) -> None:
        distribution = entry.dist
        record = PluginRecord(
            entry.name,
            entry.value,
            distribution.name if distribution else "?",
            distribution.version if distribution else "?",
        )
        self.records.append(record)
        reason = _incompatible(distribution) if distribution else None
        if reason:
            self._fail(record, reason, status="incompatible")
            return
        try:
            module = entry.load()
        # A plugin is foreign code: whatever its import raises is its own problem only.
        except Exception as error:
            self._fail(record, f"{type(error).__name__}: {error}")
            return
        misspelt = _misspelt_hooks(module)
        if misspelt:
            self._fail(record, misspelt)
            return
        key = f"{record.distribution}:{record.name}"
        try:
            self._pluggy.register(module, name=key)
        except (ValueError, pluggy.PluginValidationError) as error:
            if self._pluggy.has_plugin(key):
                self._pluggy.unregister(name=key)
            self._fail(record, " ".join(str(error).split()))
            return
        self._by_plugin[key] = record

    def _collect(self, kind: type[specs.Component]) -> Iterator[Provided]:
        hook, word = KINDS[kind]
        # Own plugins first; pluggy lists implementations in order of registration.
        for implementation in getattr(self._pluggy.hook, hook).get_hookimpls():
            record = self._by_plugin[implementation.plugin_name]
            try:
                components = list(implementation.function())
                for component in components:
                    _check_component(component, kind)
            except Exception as error:
                self._fail(record, f"{hook}: {type(error).__name__}: {error}")
                continue
            record.components[word] = [c.name for c in components]
            yield from (Provided(c, record) for c in components)

    def _fail(
        self,
        record: PluginRecord,
        problem: str,
        status: Literal["failed", "incompatible"] = "failed",
    ) -> None:
        record.status = status
        record.problem = problem
        self._report(
            f"plugin {record.name} ({record.distribution} {record.version}) {status}: {problem}"
        )

    def _import(self, component: specs.Component, target: str) -> Any:
        module, _, attribute = target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise AdzError(
                f"{component.name!r} cannot be loaded from {target}: {error}",
                component.install_hint or "run 'adz plugins' to see who provides it",
            ) from error


def is_installed(module: str) -> bool:
    """Whether `module` can be found, without importing it."""
    return importlib.util.find_spec(module) is not None


def _own_first(entry: metadata.EntryPoint) -> tuple[bool, str, str]:
    distribution = entry.dist.name if entry.dist else ""
    return (distribution != OWN_DISTRIBUTION, distribution, entry.name)


def _incompatible(distribution: metadata.Distribution) -> str | None:
    if distribution.name == OWN_DISTRIBUTION:
        return None
    wanted = [r for r in distribution.requires or () if r.lower().startswith(OWN_DISTRIBUTION)]
    if not wanted:
        return None
    from packaging.requirements import Requirement

    host = metadata.version(OWN_DISTRIBUTION)
    for text in wanted:
        requirement = Requirement(text)
        if requirement.name.lower() != OWN_DISTRIBUTION:
            continue
        if not requirement.specifier.contains(host, prereleases=True):
            return f"it needs adapterhub{requirement.specifier}, this is {host}"
    return None


def _misspelt_hooks(module: object) -> str | None:
    known = [name for name in dir(hookspecs) if name.startswith("adapterhub_")]
    for name in dir(module):
        function = getattr(module, name, None)
        marked = getattr(function, f"{hookspecs.PROJECT}_impl", None) is not None
        if marked and name not in known:
            near = get_close_matches(name, known, n=1)
            return f"there is no hook {name}" + (f", did you mean {near[0]}?" if near else "")
    return None


def _check_component(component: object, kind: type[specs.Component]) -> None:
    if not isinstance(component, kind):
        raise TypeError(f"expected specs.{kind.__name__}, got {type(component).__name__}")
    if kind is specs.MergeRule and component.name in MERGE_OPTIONS:
        raise ValueError(f"the rule {component.name!r} is named like an option of adz merge")


def _report_to_stderr(message: str) -> None:
    print(f"adz: {message}", file=sys.stderr)


@cache
def load_plugins() -> Plugins:
    """The plugins of this process, loaded once."""
    return Plugins(_report_to_stderr)


def open_registry() -> protocols.Registry:
    """The registry that `ADZ_REGISTRY` names (`local` by default), below `ADZ_HOME`."""
    import os

    from adapterhub.home import adz_home

    plugins = load_plugins()
    component = plugins.get(specs.Registry, os.environ.get("ADZ_REGISTRY", "local"))
    return cast("protocols.Registry", plugins.load_implementation(component)(adz_home()))
