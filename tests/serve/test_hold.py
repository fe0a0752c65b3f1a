"""What a server has opened is leased while it is asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, cast

import pytest

from adapterhub.errors import AdzError
from adapterhub.manifest import Version
from adapterhub.protocols import Registry
from adapterhub.serve import hold
from adapterhub.serve.hold import Hold


class Registrar:
    """Keeps the calls; fails while it is busy."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], str, float]] = []
        self.busy = False

    def lease(self, versions: Sequence[Version], holder: str, seconds: float) -> None:
        if self.busy:
            raise AdzError("busy")
        self.calls.append((sorted(version.reference for version in versions), holder, seconds))


@pytest.fixture
def registrar() -> Registrar:
    return Registrar()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(hold.time, "monotonic", lambda: now[0])
    return now


def version(number: int) -> Version:
    return Version("sql", number, f"sha256:{number}", cast("Any", None))


def test_every_opened_version_is_held_and_renewed(registrar: Registrar, clock: list[float]) -> None:
    holding, registry = Hold("vllm"), cast("Registry", registrar)
    for number in (1, 1, 2, 1, 2):
        holding.add(registry, version(number))
    holder = f"vllm server, process {os.getpid()}"
    assert registrar.calls == [(["sql@1"], holder, 3600), (["sql@1", "sql@2"], holder, 3600)]
    clock[0] = 1799
    holding.add(registry, version(1))
    assert len(registrar.calls) == 2
    clock[0] = 1801
    holding.add(registry, version(1))
    assert registrar.calls[2:] == [(["sql@1", "sql@2"], holder, 3600)]


def test_a_busy_registry_does_not_stop_the_server(registrar: Registrar, clock: list[float]) -> None:
    holding, registry = Hold("vllm"), cast("Registry", registrar)
    registrar.busy = True
    holding.add(registry, version(1))
    registrar.busy = False
    holding.add(registry, version(1))
    assert registrar.calls == []
    clock[0] = 60
    holding.add(registry, version(1))
    assert [references for references, _, _ in registrar.calls] == [["sql@1"]]


def test_what_nobody_asked_for_in_an_hour_is_let_go(
    registrar: Registrar, clock: list[float]
) -> None:
    holding, registry = Hold("vllm"), cast("Registry", registrar)
    holding.add(registry, version(1))
    for seconds in (1000, 1900, 3599):
        clock[0] = seconds
        holding.add(registry, version(2))
    clock[0] = 3599 + 1801
    holding.add(registry, version(2))
    assert [references for references, _, _ in registrar.calls[-2:]] == [
        ["sql@1", "sql@2"],
        ["sql@2"],
    ]


def test_what_was_removed_is_let_go_at_the_next_renewal(
    registrar: Registrar, clock: list[float]
) -> None:
    holding, registry = Hold("vllm"), cast("Registry", registrar)
    holding.add(registry, version(1))
    holding.drop([version(1).digest, version(7).digest])
    holding.add(registry, version(2))
    assert registrar.calls[-1][0] == ["sql@2"]
