"""Asking plugins through pluggy: what each offers, and who listens to an event."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from adapterhub import plugin_checks, specs

if TYPE_CHECKING:
    import pluggy

    from adapterhub.entry_points import EntryPoint

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


class Hooks:
    """The plugins' modules that were imported in this process."""

    def ask(
        self, entry: EntryPoint, warn: Callable[[str], None]
    ) -> tuple[list[str], list[specs.Component]]:
        """Import a plugin's module; the hooks that it implements, and all that they return.

        Raises whatever the plugin raises. warn: told of each deprecated hook or field that it uses.
        """
        key = _key(entry)
        module = entry.load()
        plugin_checks.check_hooks(module)
        for line in plugin_checks.register(self._manager, module, key):
            warn(line)
        try:
            components = list(self._collect(key))
        except BaseException:
            self._manager.unregister(name=key)
            raise
        for component in components:
            for line in plugin_checks.deprecated_fields(component):
                warn(line)
        return sorted(c.name for c in self._manager.get_hookcallers(module) or ()), components

    def was_asked(self, entry: EntryPoint) -> bool:
        """Whether its module was imported, and did not fail."""
        return bool(self._manager.has_plugin(_key(entry)))

    def listeners(self, event: str) -> Iterator[tuple[str, tuple[str, ...], Callable[..., Any]]]:
        """Who implements an event: the plugin, the names of its arguments, and the function."""
        for implementation in getattr(self._manager.hook, event).get_hookimpls():
            yield implementation.plugin_name, implementation.argnames, implementation.function

    def _collect(self, key: str) -> Iterator[specs.Component]:
        for kind, (hook, word) in KINDS.items():
            seen: set[str] = set()
            for name, _, function in self.listeners(hook):
                if name != key:
                    continue
                for component in function():
                    plugin_checks.check_component(component, kind, hook)
                    if component.name in seen:
                        raise ValueError(f"{hook} returns the {word} {component.name!r} twice")
                    seen.add(component.name)
                    yield component

    @cached_property
    def _manager(self) -> pluggy.PluginManager:
        import pluggy

        from adapterhub import hookspecs

        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        return manager


def _key(entry: EntryPoint) -> str:
    return f"{entry.distribution}:{entry.name}"
