"""Data sets of the Hub, read from its own cache, which is filled by hand and needs no network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapterhub.data import read_examples
from adapterhub.errors import EXIT_USAGE, AdzError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the snapshot of owner/name."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "datasets--owner--name"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


def write(path: Path, *texts: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_parts_of_one_set_are_read_in_order(cache: Path) -> None:
    write(cache / "data" / "train-00001-of-00002.jsonl", "c")
    write(cache / "data" / "train-00000-of-00002.jsonl", "a", "b")
    (cache / "README.md").write_text("no rows")
    data = read_examples(Path("hub:owner/name"))
    assert [e.completion for e in data.examples] == ["a", "b", "c"]
    assert data.file == f"hub:owner/name@{COMMIT}/data/train"
    assert read_examples(Path(f"hub:owner/name@{COMMIT}/data/train")).sha256 == data.sha256


def test_of_several_sets_one_must_be_named(cache: Path) -> None:
    write(cache / "train.jsonl", "a")
    write(cache / "test.jsonl", "b")
    with pytest.raises(AdzError) as caught:
        read_examples(Path("hub:owner/name"))
    assert caught.value.exit_code == EXIT_USAGE
    assert caught.value.hint == "name one: hub:owner/name/test, hub:owner/name/train"
    assert read_examples(Path("hub:owner/name/test")).rows == 1
    with pytest.raises(AdzError, match="owner/name has no valid"):
        read_examples(Path("hub:owner/name/valid"))


def test_a_bad_row_is_named_with_its_file_and_line(cache: Path) -> None:
    (cache / "train.jsonl").write_text('{"text": "a"}\n{"text": 1}\n')
    with pytest.raises(AdzError, match=r"train\.jsonl line 2: the column 'text' holds int"):
        read_examples(Path("hub:owner/name"))


def test_what_is_not_there_offline_is_said(cache: Path) -> None:
    with pytest.raises(AdzError, match="owner/other is not in the cache and HF_HUB_OFFLINE is set"):
        read_examples(Path("hub:owner/other"))
    with pytest.raises(AdzError, match="is no data set"):
        read_examples(Path("hub:other"))
