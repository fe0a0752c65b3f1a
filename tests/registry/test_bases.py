"""Bases: one namespace with the adapters, and kept while they are needed."""

from __future__ import annotations

from typing import Any

import pytest

from adapterhub.errors import EXIT_USAGE, EXIT_VERIFICATION, AdzError
from adapterhub.manifest import BaseLink


def test_bases(registry: Any, make_base: Any) -> None:
    record = make_base()
    registry.add_base(record)
    registry.add_base(record)
    assert registry.base("llama") == record
    moved = make_base(folder="elsewhere")
    registry.add_base(moved)
    assert registry.bases() == [moved]
    with pytest.raises(AdzError, match="already known, with other content") as caught:
        registry.add_base(make_base(seed=1))
    assert caught.value.exit_code == EXIT_VERIFICATION
    with pytest.raises(AdzError, match="unknown base 'lama'"):
        registry.base("lama")
    registry.remove_base("llama")
    assert registry.bases() == []


def test_bases_and_adapters_share_one_namespace(commit: Any, registry: Any, make_base: Any) -> None:
    registry.add_base(make_base("llama"))
    with pytest.raises(AdzError, match="'llama' is a base's name"):
        commit("llama")
    commit("sql")
    with pytest.raises(AdzError, match="'sql' is an adapter's name"):
        registry.add_base(make_base("sql"))
    with pytest.raises(AdzError, match="sql is an adapter, not a base"):
        registry.base("sql")


def test_a_base_that_a_live_version_needs_stays(commit: Any, registry: Any, make_base: Any) -> None:
    record = make_base()
    registry.add_base(record)
    commit(base=BaseLink(status="recorded", name="llama", digests=record.digests))
    with pytest.raises(AdzError, match="'llama' is needed by sql") as caught:
        registry.remove_base("llama")
    assert caught.value.exit_code == EXIT_USAGE
    registry.remove("sql")
    registry.remove_base("llama")
    assert registry.bases() == []
