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
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from adapterhub import plugin_checks, specs
from adapterhub.entry_points import GROUP, OWN_DISTRIBUTION, EntryPoint, find_entry_points
from adapterhub.errors import AdzError, unknown_name, usage_error

if TYPE_CHECKING:
    import pluggy

    from adapterhub import protocols

KINDS: dict[type[specs.Component], tuple[str, str]] = {
    specs.Method: ("adapterhub_methods", "method"),
    specs.Quantizer: ("adapterhub_quantizers", "quantizer"),
    specs.Objective: ("adapterhub_objectives", "objective"),
    specs.Format: ("adapterhub_formats", "format"),
    specs.MergeRule: ("adapterhub_merge_rules", "merge rule"),
    specs.MergeSpace: ("adapterhub_merge_spaces", "merge space"),
    specs.Engine: ("adapterhub_engines", "engine"),
    specs.Registry: ("adapterhub_registries", "registry"),
    specs.Remote: ("adapterhub_remotes", "remote"),
    specs.Metric: ("adapterhub_metrics", "metric"),
    specs.Command: ("adapterhub_commands", "command"),
}
"""Each kind of component, its hook and the word for it in messages."""

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
    """All plugins of this environment. A plugin's module is imported when it is first needed."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._entries = sorted(find_entry_points(GROUP), key=_own_first)
        self._records: dict[EntryPoint, PluginRecord] = {}
        self._components: dict[EntryPoint, list[specs.Component]] = {}

    @property
    def records(self) -> list[PluginRecord]:
        """What became of every entry point, ours first, in a stable order."""
        self._load(self._entries)
        return [self._records[entry] for entry in self._entries]

    def provided(self, kind: type[specs.Component]) -> list[Provided]:
        """Every component of a kind with its plugin, ours first, in a stable order."""
        self._load(self._entries)
        return [
            Provided(component, self._records[entry])
            for entry in self._entries
            for component in self._components.get(entry, ())
            if type(component) is kind
        ]

    def commands(self) -> dict[str, specs.Command]:
        """The commands that other distributions add. Our own stand in `adapterhub.cli`, so
        none of our plugins is loaded for them."""
        foreign = [e for e in self._entries if e.distribution != OWN_DISTRIBUTION]
        self._load(foreign)
        found: dict[str, specs.Command] = {}
        for entry in foreign:
            for component in self._components.get(entry, ()):
                if isinstance(component, specs.Command):
                    found.setdefault(component.name, component)
        return found

    def components(self, kind: type[C]) -> dict[str, C]:
        """Components by name. A name that several plugins provide is there once: the first's."""
        found: dict[str, C] = {}
        for provided in self.provided(kind):
            found.setdefault(provided.component.name, cast("C", provided.component))
        return found

    def get(self, kind: type[C], name: str) -> C:
        """The component called `name`, or `distribution:name` where several plugins provide it.

        A name that we provide means ours; one that only strangers share must be qualified.
        """
        word = KINDS[kind][1]
        distribution, _, short = name.rpartition(":")
        found = [
            p
            for p in self.provided(kind)
            if p.component.name == short and distribution in ("", p.plugin.distribution)
        ]
        if not found:
            raise unknown_name(word, name, (p.component.name for p in self.provided(kind)))
        if len(found) > 1 and found[0].plugin.distribution != OWN_DISTRIBUTION:
            choices = " or ".join(f"{p.plugin.distribution}:{short}" for p in found)
            raise usage_error(
                f"{len(found)} plugins provide the {word} {short!r}", f"use {choices}"
            )
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

    def load_limits(self, engine: specs.Engine) -> Any:
        """What tells why the engine would not serve an adapter as it is, or None."""
        return self._import(engine, engine.limits) if engine.limits else None

    def call_event(self, hook: str, **arguments: Any) -> None:
        """Call an event in every plugin.

        A `before_` hook that raises refuses the action (AdzError: it fails closed). Where an
        `after_` hook raises, the work is done and is kept: it costs a line on stderr.
        """
        self._load(self._entries)
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            values = [arguments[name] for name in implementation.argnames]
            try:
                implementation.function(*values)
            except Exception as error:
                refusal = _refusal(implementation.plugin_name, hook, error)
                if hook.startswith("adapterhub_before_"):
                    raise refusal from error
                self._report(str(refusal))

    def versions_of(self, *components: specs.Component) -> dict[str, str]:
        """`{distribution: version}` of the plugins that provide these components."""
        wanted = set(components)
        return {
            p.plugin.distribution: p.plugin.version
            for kind in {type(c) for c in components}
            for p in self.provided(kind)
            if p.component in wanted
        }

    @cached_property
    def _manager(self) -> pluggy.PluginManager:
        import pluggy

        from adapterhub import hookspecs

        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        return manager

    def _load(self, entries: list[EntryPoint]) -> None:
        for entry in entries:
            if entry not in self._records:
                self._load_one(entry)

    def _load_one(self, entry: EntryPoint) -> None:
        record = PluginRecord(entry.name, entry.value, entry.distribution, entry.version)
        self._records[entry] = record
        key = f"{entry.distribution}:{entry.name}"
        # A plugin is foreign code: whatever it raises here is its own problem only.
        try:
            reason = plugin_checks.incompatibility(entry)
            if reason:
                self._fail(record, reason, status="incompatible")
                return
            module = entry.load()
            plugin_checks.check_hooks(module)
            self._manager.register(module, name=key)
            components = list(self._collect(key))
        except (Exception, SystemExit) as error:
            if self._manager.has_plugin(key):
                self._manager.unregister(name=key)
            self._fail(record, plugin_checks.one_line(error))
            return
        self._components[entry] = components
        for component in components:
            word = KINDS[type(component)][1]
            record.components.setdefault(word, []).append(component.name)
            self._report_duplicate(entry, component)

    def _collect(self, key: str) -> Iterator[specs.Component]:
        for kind, (hook, word) in KINDS.items():
            seen: set[str] = set()
            for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                if implementation.plugin_name != key:
                    continue
                for component in implementation.function():
                    plugin_checks.check_component(component, kind, hook)
                    if component.name in seen:
                        raise ValueError(f"{hook} returns the {word} {component.name!r} twice")
                    seen.add(component.name)
                    yield component

    def _report_duplicate(self, entry: EntryPoint, component: specs.Component) -> None:
        for other in self._entries:
            # Entries are loaded in order, so each pair is reported once.
            if other == entry:
                return
            names = [c.name for c in self._components.get(other, ()) if type(c) is type(component)]
            if component.name in names:
                self._report(
                    f"plugin {entry.name} ({entry.distribution} {entry.version}): the "
                    f"{KINDS[type(component)][1]} {component.name!r} is also provided by "
                    f"{other.distribution}; use {entry.distribution}:{component.name} for this one"
                )
                return

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


def _own_first(entry: EntryPoint) -> tuple[bool, str, str]:
    return (entry.distribution != OWN_DISTRIBUTION, entry.distribution, entry.name)


def _refusal(plugin: str, hook: str, error: Exception) -> AdzError:
    if isinstance(error, AdzError):
        return error
    return AdzError(f"plugin {plugin} raised in {hook}: {plugin_checks.one_line(error)}")


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

    home = adz_home()
    if home.exists() and not home.is_dir():
        raise usage_error(f"{home} is not a directory", "set ADZ_HOME to a folder")
    plugins = load_plugins()
    component = plugins.get(specs.Registry, os.environ.get("ADZ_REGISTRY", "local"))
    return cast("protocols.Registry", plugins.load_implementation(component)(home))
