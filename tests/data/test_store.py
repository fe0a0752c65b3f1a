"""More text than memory should hold goes to disk and reads the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapterhub.data import read_examples, split_holdout, store
from adapterhub.protocols import Example

EXAMPLES = [
    Example(
        messages=({"role": "user", "content": f"q{n} ü"}, {"role": "assistant", "content": "a"}),
        tools=({"type": "function"},),
    )
    for n in range(50)
] + [
    Example(prompt=f"p{n}", completion="c", rejected="d", desirable=bool(n % 2)) for n in range(50)
]


def test_what_is_stored_is_what_was_kept(home: Path) -> None:
    stored = store.keep(iter(EXAMPLES), limit=40)
    assert isinstance(stored, store.StoredExamples)
    assert list(stored) == EXAMPLES
    assert stored[3] == EXAMPLES[3]
    assert stored[-1] == EXAMPLES[-1]
    assert list(stored[10:40:7]) == EXAMPLES[10:40:7]
    assert list(store.select(stored, [5, 1])) == [EXAMPLES[5], EXAMPLES[1]]
    assert store.keep(iter(EXAMPLES), limit=10**6) == EXAMPLES


def test_a_split_of_what_is_stored_is_that_of_a_list(home: Path) -> None:
    stored = split_holdout(store.keep(iter(EXAMPLES), limit=1), 0.2)
    assert [list(part) for part in stored] == list(split_holdout(EXAMPLES, 0.2))


def test_reading_holds_one_row_at_a_time(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read of a file is written before the next is read."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * 1000}) + "\n" for _ in range(20_000)))
    monkeypatch.setattr(store, "IN_MEMORY", 10_000)
    import tracemalloc

    tracemalloc.start()
    data = read_examples(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data.rows == 20_000
    # 20 MB of text; the index is 16 bytes a row.
    assert peak < 3_000_000


def test_the_limit_counts_every_text() -> None:
    def lengths() -> Iterator[int]:
        yield from (store.characters(example) for example in (EXAMPLES[0], EXAMPLES[60]))

    assert list(lengths()) == [len("q0 ü") + 1, len("p10") + 2]
