"""From a request's `model` to a version, on a real registry."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.plugins import open_registry
from adapterhub.serve.errors import RequestError
from adapterhub.serve.models import (
    ModelList,
    list_models,
    resolve_model,
    servable_versions,
    why_not_servable,
)


def resolve(base: Any, model: object) -> Any:
    return resolve_model(open_registry(), base, model, lambda v: why_not_servable(v, base))


def refusal(base: Any, model: object) -> RequestError:
    with pytest.raises(RequestError) as raised:
        resolve(base, model)
    return raised.value


def test_the_base_is_no_version(tiny_base: Any) -> None:
    assert resolve(tiny_base, "tiny") is None


@pytest.mark.parametrize("model", ["sql", "sql@latest"])
def test_a_reference_is_resolved_at_each_request(
    tiny_base: Any, commit_adapter: Any, model: str
) -> None:
    first = commit_adapter("sql")
    assert resolve(tiny_base, model).digest == first.digest
    second = commit_adapter("sql", seed=1)
    assert resolve(tiny_base, model).digest == second.digest
    assert resolve(tiny_base, "sql@1").digest == first.digest


@pytest.mark.parametrize(
    ("model", "status", "words"),
    [
        (None, HTTPStatus.BAD_REQUEST, "no model"),
        ("", HTTPStatus.BAD_REQUEST, "no model"),
        (7, HTTPStatus.BAD_REQUEST, "no model"),
        ("../sql", HTTPStatus.BAD_REQUEST, "not a valid name"),
        ("/sql", HTTPStatus.BAD_REQUEST, "not a valid name"),
        ("./sql", HTTPStatus.BAD_REQUEST, "not a valid name"),
        ("~", HTTPStatus.BAD_REQUEST, "not a valid name"),
        ("sql\n", HTTPStatus.BAD_REQUEST, "not a valid name"),
        ("sql@0", HTTPStatus.BAD_REQUEST, "versions count from 1"),
        ("sql@sha256:zz", HTTPStatus.BAD_REQUEST, "malformed digest"),
        ("a" * 257, HTTPStatus.BAD_REQUEST, "257 characters"),
        ("sq", HTTPStatus.NOT_FOUND, "did you mean sql?"),
        ("tinny", HTTPStatus.NOT_FOUND, "the base is called tiny"),
        ("sql@7", HTTPStatus.NOT_FOUND, "sql"),
        ("sql@prod", HTTPStatus.NOT_FOUND, "prod"),
    ],
)
def test_what_is_not_served_is_refused(
    tiny_base: Any, commit_adapter: Any, model: object, status: HTTPStatus, words: str
) -> None:
    commit_adapter("sql")
    error = refusal(tiny_base, model)
    assert error.status is status
    assert words in error.message
    assert error.body() == {
        "error": {
            "message": error.message,
            "type": "NotFoundError" if status is HTTPStatus.NOT_FOUND else "BadRequestError",
            "param": "model",
            "code": status.value,
        }
    }


def test_an_engine_may_refuse_with_its_reason(tiny_base: Any, commit_adapter: Any) -> None:
    commit_adapter("sql")
    with pytest.raises(RequestError, match="too large") as raised:
        resolve_model(open_registry(), tiny_base, "sql", lambda v: f"{v.reference} is too large")
    assert raised.value.status is HTTPStatus.UNPROCESSABLE_ENTITY


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (EXIT_VERIFICATION, HTTPStatus.UNPROCESSABLE_ENTITY),
        (1, HTTPStatus.INTERNAL_SERVER_ERROR),
    ],
)
def test_a_failing_registry_is_not_an_unknown_name(
    tiny_base: Any, monkeypatch: pytest.MonkeyPatch, code: int, status: HTTPStatus
) -> None:
    registry = open_registry()

    def fail(reference: str, key: str | None) -> Any:
        raise AdzError("the disk is gone", exit_code=code)

    monkeypatch.setattr(registry, "resolve", fail)
    with pytest.raises(RequestError, match="the disk is gone") as raised:
        resolve_model(registry, tiny_base, "sql", lambda v: None)
    assert raised.value.status is status


def with_link(version: Any, **changes: Any) -> Any:
    """The same version as if its base were linked otherwise."""
    from dataclasses import replace

    link = version.manifest.base.model_copy(update=changes)
    return replace(version, manifest=version.manifest.model_copy(update={"base": link}))


def test_only_an_adapter_of_this_base_is_servable(tiny_base: Any, commit_adapter: Any) -> None:
    version = commit_adapter("sql")
    digests = tiny_base.digests
    assert why_not_servable(version, tiny_base) is None
    unknown = with_link(version, status="unknown", digests=None)
    assert "not known" in (why_not_servable(unknown, tiny_base) or "")
    for part in ("weights", "arch"):
        other = digests.model_copy(update={part: "sha256:" + "0" * 64})
        moved = with_link(version, name="qwen", digests=other)
        assert "made for qwen" in (why_not_servable(moved, tiny_base) or "")
    retokenised = digests.model_copy(update={"tokenizer": "sha256:" + "0" * 64})
    assert "tokenizer" in (
        why_not_servable(with_link(version, digests=retokenised), tiny_base) or ""
    )
    # The name of a base is a hint only: its digests decide.
    renamed = with_link(version, name="another-name")
    assert why_not_servable(renamed, tiny_base) is None


def test_every_servable_version_has_a_reference_in_the_list(
    tiny_base: Any, commit_adapter: Any
) -> None:
    registry = open_registry()
    commit_adapter("sql")
    commit_adapter("sql", seed=1)
    commit_adapter("french", seed=2)
    registry.tag("sql@1", "prod")
    hidden = registry.resolve("french").digest

    def why_not(version: Any) -> str | None:
        return "no" if version.digest == hidden else None

    listed = list_models(registry, tiny_base, why_not, lambda version: version.number == 2)
    assert {entry.id: entry.version and entry.version.reference for entry in listed} == {
        "tiny": None,
        "sql@1": "sql@1",
        "sql@prod": "sql@1",
        "sql": "sql@2",
    }
    assert [entry.id for entry in listed if entry.converted] == ["sql"]


def test_the_list_is_read_anew_when_something_changed_and_only_then(
    tiny_base: Any, commit_adapter: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, listed, reads = open_registry(), ModelList(), 0
    commit_adapter("sql")
    versions = registry.versions

    def count() -> Any:
        nonlocal reads
        reads += 1
        return versions()

    monkeypatch.setattr(registry, "versions", count)

    def ids() -> list[str]:
        found = listed.read(registry, tiny_base, lambda v: None, lambda v: False)
        return [model.id for model in found]

    assert ids() == ids() == ["tiny", "sql"]
    assert reads == 1
    registry.tag("sql@1", "prod")
    assert ids() == ids() == ["tiny", "sql", "sql@prod"]
    assert reads == 2
    registry.remove("sql")
    assert ids() == ["tiny"]
    (home / "policy.yaml").write_text("quotas:\n  'sql': {versions: 5}\n")
    assert ids() == ids() == ["tiny"]
    assert reads == 4


@pytest.mark.parametrize("page", [1, 2, 100])
def test_servable_versions_come_in_the_order_of_the_listing(
    tiny_base: Any, commit_adapter: Any, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr("adapterhub.serve.models._PAGE", page)
    registry = open_registry()
    first = commit_adapter("sql")
    commit_adapter("sql", seed=1), commit_adapter("french", seed=2)
    link = first.manifest.base.model_copy(update={"status": "unknown"})
    strange = first.manifest.model_copy(update={"name": "strange", "base": link})
    registry.commit(strange, registry.path(first))

    def references(*, reverse: bool) -> list[str]:
        found = servable_versions(registry, tiny_base, sort="name", reverse=reverse)
        return [version.reference for version in found]

    assert references(reverse=False) == ["french@1", "sql@1", "sql@2"]
    assert references(reverse=True) == ["sql@2", "sql@1", "french@1"]
