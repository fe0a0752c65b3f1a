"""The journal of names: what its lines mean after crashes and damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterhub.manifest import canonical_json, sha256_of
from adapterhub_registry.journal import Event, Journal


def event(seq: int, name: str = "sql") -> Event:
    return Event(seq, "2026-01-01T00:00:00.000Z", "me", "tag", name, 1, "prod")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "names.jsonl")


def names(journal: Journal) -> list[tuple[int, str]]:
    return [(found.seq, found.name) for found in journal.read()]


def test_it_reads_what_was_appended(journal: Journal) -> None:
    assert journal.read() == []
    events = [event(1), event(2), event(3)]
    journal.append(events[:1])
    journal.append(events[1:])
    assert journal.read() == events


def test_a_change_supersedes_all_of_an_unfinished_one(journal: Journal) -> None:
    journal.append([event(1)])
    # Its process was killed before the database had it.
    journal.append([event(2, "killed"), event(3, "killed"), event(4, "killed")])
    journal.append([event(2, "next")])
    assert names(journal) == [(1, "sql"), (2, "next")]


@pytest.mark.parametrize("cut", [1, 60, 200, 260])
def test_a_change_whose_end_is_not_there_did_not_happen(journal: Journal, cut: int) -> None:
    journal.append([event(1)])
    journal.append([event(2), event(3)])
    whole = journal.path.read_bytes()
    assert len(whole) > 3 * 170
    # The line break alone says nothing.
    journal.path.write_bytes(whole[: -cut - 1])
    assert names(journal) == [(1, "sql")]
    journal.append([event(2, "next")])
    assert names(journal) == [(1, "sql"), (2, "next")]


def test_a_damaged_end_of_a_change_that_another_one_follows_is_missed_alone(
    journal: Journal,
) -> None:
    journal.append([event(1), event(2)])
    journal.append([event(3)])
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(lines[0] + lines[1].replace(b"sql", b"sqm") + lines[2])
    assert names(journal) == [(1, "sql"), (3, "sql")]


def test_every_flipped_bit_is_noticed(journal: Journal) -> None:
    journal.append([event(1)])
    whole = journal.path.read_bytes()
    for bit in range(8 * (len(whole) - 1)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        journal.path.write_bytes(flipped)
        assert journal.read() == [], bit


def test_a_line_that_means_the_same_in_other_bytes_is_damaged(journal: Journal) -> None:
    journal.append([event(1)])
    journal.path.write_bytes(journal.path.read_bytes().replace(b'"seq":1', b'"seq": 1'))
    assert journal.read() == []


def test_lines_of_the_first_version_are_read(journal: Journal) -> None:
    values = {
        "seq": 1, "time": "2026-01-01T00:00:00.000Z", "actor": "me", "action": "tag",
        "name": "sql", "version": 1, "alias": "prod", "previous": None, "body": {},
    }  # fmt: skip
    line = canonical_json({"sha256": sha256_of(canonical_json(values)), "event": values})
    journal.path.write_bytes(line + b"\n")
    assert journal.read() == [event(1)]
