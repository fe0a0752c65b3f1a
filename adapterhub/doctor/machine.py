"""The processor, the GPU, and modules that are installed and broken."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from adapterhub.doctor.check import Check, wrong
from adapterhub.plugins import is_installed

# Text serving and training need none of these, and transformers dies when one is broken.
_OFTEN_BROKEN = ("torchvision", "torchaudio", "torchcodec")
_ISA = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def check_machine() -> Iterator[Check]:
    """Broken modules, processor and GPU."""
    yield from _broken_imports()
    yield _processor()
    yield _gpu()


def _broken_imports() -> Iterator[Check]:
    for module in filter(is_installed, _OFTEN_BROKEN):
        done = subprocess.run(
            [sys.executable, "-c", f"import {module}"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it does not import"])[-1]
            yield wrong(module, last, f"pip uninstall {module}: nothing here needs it")


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
        return wrong("GPU", f"{found}, but torch is {torch}", "install torch with CUDA")
    return Check("GPU", "ok", found)
