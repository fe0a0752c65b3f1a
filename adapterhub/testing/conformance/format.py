"""What a user of a data format relies on."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from adapterhub import specs
from adapterhub.data import read_examples
from adapterhub.protocols import Example, WritableFormat
from adapterhub.testing.conformance import training
from adapterhub.testing.conformance.base import (
    Conformance,
    check_refusal,
    check_success,
    text_raised,
)
from adapterhub.testing.fixtures import Adz

_STRANGE: tuple[Any, ...] = (None, 3, [], {}, "", True, [None], {"role": 3})


class FormatConformance(Conformance):
    """Of a data format: `name = "mine"`.

    rows: some that it reads, each with all of its columns. broken: some that it must refuse.
    arguments: more for `adz train`, such as the objective that learns from such rows.
    """

    kind: ClassVar[type[specs.Component]] = specs.Format
    arguments: ClassVar[Sequence[str]] = ()
    rows: ClassVar[Sequence[Mapping[str, Any]]]
    broken: ClassVar[Sequence[Mapping[str, Any]]]

    def test_it_reads_its_rows(self) -> None:
        """Each is an `Example` with something to learn, and stays as it was."""
        layout = self.implementation()
        for row in self.rows:
            before = copy.deepcopy(row)
            assert layout.matches(row) is True, f"matches({row}) is {layout.matches(row)!r}"
            example = layout.example(row)
            assert isinstance(example, Example), f"{type(example).__name__} is no Example"
            assert example != Example(), f"nothing is learnt from {row}"
            assert row == before, f"reading changed the row {before}"

    def test_its_rows_are_of_its_kind(self) -> None:
        """They hold what the descriptor's `kind` says: objectives are chosen by it."""
        for row in self.rows:
            found, said = _kind_of(self.implementation().example(row)), self.component.kind
            assert found == said, f"kind={said!r}, and {row} is read as {found}"

    def test_what_it_writes_it_reads(self) -> None:
        """Where it can write (`WritableFormat`): `adz data convert` loses nothing."""
        layout = self.implementation()
        if not isinstance(layout, WritableFormat):
            return
        for row in self.rows:
            example = layout.example(row)
            written = json.loads(json.dumps(layout.row(example)))
            again = layout.example(written)
            assert layout.matches(written), f"it does not recognise what it wrote: {written}"
            assert again == example, f"{example} is written as {written} and read as {again}"

    def test_it_refuses_with_a_reason(self) -> None:
        """What is broken raises ValueError: one line that says what is wrong."""
        layout = self.implementation()
        for row in self.broken:
            text = text_raised(ValueError, partial(layout.example, row), f"it reads {row}")
            assert len(text.splitlines()) == 1, f"the reason for {row} is {text!r}"

    def test_strange_rows_raise_nothing_else(self) -> None:
        """Files hold anything: `matches` answers, `example` answers or raises ValueError."""
        layout = self.implementation()
        for row in [{}, *self.rows]:
            for column in row or ("text",):
                for value in _STRANGE:
                    _try_row(layout, {**row, column: value})
                _try_row(layout, {k: v for k, v in row.items() if k != column})

    def test_it_alone_recognises_its_rows(self, tmp_path: Path) -> None:
        """`adz train --data` finds the format from the first row."""
        for row in self.rows:
            found = read_examples(training.write_rows(tmp_path, [row])).format
            assert found == self.name, f"{row} is recognised as {found}"

    def test_adz_trains_on_it(self, adz: Adz, tiny_base: Any, tmp_path: Path) -> None:
        """`adz train --format NAME` reads it; a broken row is one line that names its line."""
        rows = [*self.rows] * 4
        command = ("train", "--base", "tiny", "--format", self.name, "--dry-run", "--data")
        flags = ("-o", "data.holdout=0", *self.arguments)
        check_success(adz(*command, training.write_rows(tmp_path, rows), *flags))
        broken = training.write_rows(tmp_path, [*rows, self.broken[0]])
        line = check_refusal(adz(*command, broken, *flags))
        assert f"line {len(rows) + 1}" in line, f"the error does not say where: {line!r}"


def _kind_of(example: Example) -> specs.RowKind:
    if example.rejected is not None:
        return "preference"
    if example.desirable is not None:
        return "unpaired_preference"
    last = example.messages[-1] if example.messages else {"content": example.completion}
    return "supervised" if last["content"] or last.get("tool_calls") else "prompt"


def _try_row(layout: Any, row: Mapping[str, Any]) -> None:
    try:
        answer = layout.matches(row)
        assert isinstance(answer, bool), f"matches({row}) is {answer!r}"
        layout.example(row)
    except ValueError:
        pass
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        pytest.fail(f"{type(error).__name__} for {row}: {error}; raise ValueError with a reason")
