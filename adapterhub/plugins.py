"""Loading plugins, isolating the ones that fail, and knowing who provides what.

A plugin that cannot be imported, misspells a hook, raises in one or asks for another version
of adapterhub costs one line on stderr and its own components; everything else works.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from adapterhub import plugin_checks, plugin_choice, specs
from adapterhub.entry_points import GROUP, OWN_DISTRIBUTION, EntryPoint, find_entry_points
from adapterhub.errors import AdzError, unknown_name, usage_error
from adapterhub.plugin_cache import PluginCache
from adapterhub.plugin_hooks import KINDS, Hooks
from adapterhub.plugin_records import PluginRecord, Provided

if TYPE_CHECKING:
    from adapterhub import protocols

C = TypeVar("C", bound=specs.Component)


class Plugins:
    """All plugins of this environment.

    A plugin's module is imported when something of it is used; what it offers is remembered from
    an earlier process. anew: import all of them now, whatever is remembered.
    """

    def __init__(self, report: Callable[[str], None], *, anew: bool = False) -> None:
        self._report = report
        self._entries = sorted(find_entry_points(GROUP), key=_own_first)
        self._disabled = plugin_choice.why_disabled(self._entries)
        for name in plugin_choice.not_installed(self._entries):
            report(f"{plugin_choice.VARIABLE} names {name}, which is not installed")
        self._hooks = Hooks()
        self._cache = PluginCache()
        self._anew = anew
        self._records: dict[EntryPoint, PluginRecord] = {}
        self._components: dict[EntryPoint, list[specs.Component]] = {}

    @property
    def records(self) -> list[PluginRecord]:
        """What became of every entry point, ours first, in a stable order."""
        self._load(self._entries)
        records = [self._records[entry] for entry in self._entries]
        for record in records:
            record.shared = _shared(record, records)
        return records

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
        """The commands that other distributions add, by name; of those that share one the first.
        Our own stand in `adapterhub.cli`, so none of our plugins is loaded for them."""
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

    def name_of(self, component: specs.Component) -> str:
        """What finds this component again: its name, or `distribution:name` where that means
        another one or several."""
        same = [p for p in self.provided(type(component)) if p.component.name == component.name]
        first = same[0].plugin.distribution
        plain = len(same) == 1 or first == OWN_DISTRIBUTION
        if plain and same[0].component == component:
            return component.name
        owner = next(p.plugin.distribution for p in same if p.component == component)
        return f"{owner}:{component.name}"

    def load_implementation(self, component: specs.Component) -> Any:
        """Import what `impl` names; a missing requirement says what to install."""
        missing = [m for m in component.requires if not is_installed(m)]
        if missing:
            hint = component.install_hint or "install " + ", ".join(missing)
            raise AdzError(f"{component.name!r} needs {', '.join(missing)}", hint)
        return self._import(component, component.impl)

    def load_options(self, component: specs.Component) -> Any:
        """The pydantic model of the component's options, or None. Raises AdzError where an option
        has a second name: its one name stands in recipes, flags and errors alike."""
        if component.config is None:
            return None
        model = self._import(component, component.config)
        for name, field in model.model_fields.items():
            others = (field.alias, field.validation_alias, field.serialization_alias)
            aliases = [other for other in others if other not in (None, name)]
            if aliases:
                raise AdzError(
                    f"the option {name} of {component.name!r} has an alias, {aliases[0]}",
                    "give it one name; pydantic.create_model takes a name that is a word of Python",
                )
        return model

    def load_limits(self, engine: specs.Engine) -> Any:
        """What tells why the engine would not serve an adapter as it is, or None."""
        return self._import(engine, engine.limits) if engine.limits else None

    def load_forecast(self, method: specs.Method) -> Any:
        """What tells the targets of the method from the layout of a base, or None: there is no
        such thing, or what the method needs is missing, of which `load_implementation` tells."""
        if method.forecast is None or not all(map(is_installed, method.requires)):
            return None
        return self._import(method, method.forecast)

    def call_event(self, hook: str, **arguments: Any) -> None:
        """Call an event in every plugin.

        A `before_` hook that raises refuses the action (AdzError: it fails closed). Where an
        `after_` hook raises, the work is done and is kept: it costs a line on stderr.
        """
        self._load(self._entries)
        for entry in self._entries:
            # What was only remembered is imported now.
            if hook in self._records[entry].hooks and not self._hooks.was_asked(entry):
                self._import_plugin(entry)
        for plugin, names, function in self._hooks.listeners(hook):
            values = [arguments[name] for name in names]
            try:
                function(*values)
            except Exception as error:
                refusal = _refusal(plugin, hook, error)
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

    def _load(self, entries: list[EntryPoint]) -> None:
        for entry in entries:
            if entry not in self._records:
                self._load_one(entry)
        self._cache.save()

    def _load_one(self, entry: EntryPoint) -> None:
        record = PluginRecord(entry.name, entry.value, entry.distribution, entry.version)
        self._records[entry] = record
        if entry.distribution in self._disabled:
            record.status, record.problem = "disabled", self._disabled[entry.distribution]
            return
        # A plugin is foreign code: whatever it raises here is its own problem only.
        try:
            reason = plugin_checks.incompatibility(entry)
        except Exception as error:
            reason = plugin_checks.one_line(error)
        if reason:
            self._fail(record, reason, status="incompatible")
            return
        remembered = None if self._anew else self._cache.get(entry)
        if remembered is not None:
            record.hooks, components = remembered
        elif (found := self._import_plugin(entry)) is not None:
            components = found
            self._cache.put(entry, record.hooks, components)
        else:
            return
        self._components[entry] = components
        for component in components:
            word = KINDS[type(component)][1]
            record.components.setdefault(word, []).append(component.name)

    def _import_plugin(self, entry: EntryPoint) -> list[specs.Component] | None:
        """Import and ask the plugin's module; None, and a line, where it fails."""
        record = self._records[entry]

        def warn(line: str) -> None:
            record.problem = line
            self._report(f"plugin {record.name} ({record.distribution} {record.version}): {line}")

        begun = time.perf_counter()
        try:
            record.hooks, components = self._hooks.ask(entry, warn)
        except (Exception, SystemExit) as error:
            record.hooks = []
            self._fail(record, plugin_checks.one_line(error))
            return None
        record.seconds = time.perf_counter() - begun
        return components

    def _fail(
        self,
        record: PluginRecord,
        problem: str,
        status: Literal["failed", "incompatible"] = "failed",
    ) -> None:
        record.status = status
        record.problem = problem
        line = f"plugin {record.name} ({record.distribution} {record.version}) {status}: {problem}"
        if os.environ.get("ADZ_STRICT_PLUGINS") == "1":
            raise AdzError(line, "ADZ_STRICT_PLUGINS=1")
        self._report(line)

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


def _shared(record: PluginRecord, records: list[PluginRecord]) -> dict[str, list[str]]:
    others = [r for r in records if r is not record]
    found = {
        word: [n for n in names if any(n in r.components.get(word, ()) for r in others)]
        for word, names in record.components.items()
    }
    return {word: names for word, names in found.items() if names}


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
    from adapterhub.home import adz_home

    home = adz_home()
    if home.exists() and not home.is_dir():
        raise usage_error(f"{home} is not a directory", "set ADZ_HOME to a folder")
    plugins = load_plugins()
    component = plugins.get(specs.Registry, os.environ.get("ADZ_REGISTRY", "local"))
    return cast("protocols.Registry", plugins.load_implementation(component)(home))
