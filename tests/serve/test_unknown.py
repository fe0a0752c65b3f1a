"""Names that are not there: remembered, but never for longer than that is true."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest

from adapterhub.errors import usage_error
from adapterhub.plugins import open_registry
from adapterhub.serve import unknown
from adapterhub.serve.errors import RequestError
from adapterhub.serve.models import resolve_model
from adapterhub.serve.unknown import UnknownNames


class Asked:
    """Resolves over a real registry and counts how often it was asked."""

    def __init__(self, base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names = UnknownNames()
        self.registry: Any = open_registry()
        self.resolved = 0
        self._base = base
        resolve = self.registry.resolve

        def counted(reference: str, key: str | None = None) -> Any:
            self.resolved += 1
            return resolve(reference, key)

        monkeypatch.setattr(self.registry, "resolve", counted)

    def ask(self, model: object) -> Any:
        with self.names.remembered(self.registry, model):
            return resolve_model(self.registry, self._base, model, lambda v: None)

    def refused(self, model: object) -> RequestError:
        with pytest.raises(RequestError) as raised:
            self.ask(model)
        return raised.value


@pytest.fixture
def asked(tiny_base: Any, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(tiny_base, monkeypatch)


def test_asking_again_does_not_look_again_and_says_the_same(
    asked: Asked, commit_adapter: Any
) -> None:
    commit_adapter("sql")
    errors = [asked.refused("sqk") for _ in range(5)]
    assert {error.message for error in errors} == {errors[0].message}
    assert "did you mean sql" in errors[0].message
    assert {error.status for error in errors} == {HTTPStatus.NOT_FOUND}
    assert asked.resolved == 1


def test_a_commit_or_a_tag_counts_at_once(asked: Asked, commit_adapter: Any) -> None:
    asked.refused("sql")
    version = commit_adapter("sql")
    assert asked.ask("sql").digest == version.digest
    asked.refused("sql@prod")
    # Through another connection, as by another process.
    open_registry().tag("sql@1", "prod")
    assert asked.ask("sql@prod").digest == version.digest
    open_registry().remove("sql")
    assert asked.refused("sql").status is HTTPStatus.NOT_FOUND


def test_only_what_is_not_there_is_remembered(
    asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in ("../x", None, "", 7):
        assert asked.refused(model).status is HTTPStatus.BAD_REQUEST

    def busy(reference: str, key: str | None = None) -> Any:
        raise RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, "damaged")

    monkeypatch.setattr(asked.registry, "resolve", busy)
    assert asked.refused("sql").status is HTTPStatus.UNPROCESSABLE_ENTITY
    assert len(asked.names._answers) == 0


def test_what_is_remembered_is_bounded(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unknown, "_MOST", 10)

    def nothing(reference: str, key: str | None = None) -> Any:
        raise usage_error(f"unknown adapter {reference!r}")

    monkeypatch.setattr(asked.registry, "resolve", nothing)
    for number in range(10_000):
        asked.refused(f"made-up-{number}")
    assert list(asked.names._answers) == [f"made-up-{number}" for number in range(9_990, 10_000)]
