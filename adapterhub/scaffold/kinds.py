"""The kinds of component that a new plugin may begin with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """folder: of its templates. word: in messages and tables. usage: how it is used; `{name}`
    stands for the component. extras: of adapterhub, that its tests need beside `testing`."""

    folder: str
    word: str
    usage: str
    extras: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {
    "merge-rule": Kind("merge_rule", "merge rule", "adz merge --{name} a b c"),
    "merge-space": Kind("merge_space", "merge space", "adz merge --linear --space {name} a b"),
    "method": Kind("method", "method", "adz train --method {name}"),
    "quantizer": Kind("quantizer", "quantizer", "adz train --quantizer {name}"),
    "objective": Kind("objective", "objective", "adz train --objective {name}"),
    "engine": Kind("engine", "engine", "adz serve --engine {name}", ("serve",)),
    "format": Kind("format", "format", "adz train --format {name}"),
    "remote": Kind("remote", "remote", "adz push sql --to {name}:///folder"),
    "metric": Kind("metric", "metric", "adz eval --metric {name}"),
    "command": Kind("command", "command", "adz {name}"),
}
"""By what stands behind `--kind`, in the order of tables."""
