"""What a user of an objective relies on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from adapterhub import specs
from adapterhub.testing.conformance import training
from adapterhub.testing.conformance.base import Conformance, check_refusal, check_success
from adapterhub.testing.fixtures import Adz, WithPlugin

_FIRST: dict[type[ObjectiveConformance], str] = {}
"""The payload that the first run of each class made."""
_JUDGED = ("preference", "unpaired_preference")
_OTHER_JUDGEMENTS = """
from dataclasses import replace

from adapterhub import hookimpl


@hookimpl
def adapterhub_before_train(run):
    run.train_rows.rows = [
        replace(row, rejected=row.rejected[:1] + row.rejected)
        if row.rejected
        else replace(row, desirable=not row.desirable)
        for row in run.train_rows
    ]
"""
"""A plugin: whatever the format of the rows was, their judgements are others now."""


class ObjectiveConformance(Conformance):
    """Of an objective: `name = "mine"`.

    rows: what it learns from, dicts in the columns of a format of the first of its `kinds`, where
    the 16 of that kind that the kit has do not do. The kit's have the columns `prompt` and
    `completion` (supervised), `chosen` and `rejected` beside the prompt (preference), `completion`
    and `label` beside it (unpaired_preference), or the prompt alone.
    """

    kind: ClassVar[type[specs.Component]] = specs.Objective
    section: ClassVar[str] = "objective"
    rows: ClassVar[Sequence[Mapping[str, Any]]] = ()

    def write_rows(self, folder: Path) -> Path:
        """The rows as a data file in `folder`."""
        rows = self.rows or training.ROWS_OF[self.component.kinds[0]]
        return training.write_rows(folder, rows)

    def flags(self) -> list[str]:
        """`--objective NAME` and its options."""
        return ["--objective", self.name, *training.option_flags("objective", self.options)]

    def train(self, adz: Adz, folder: Path, name: str, *flags: str) -> Any:
        """Three steps over its rows; returns the manifest."""
        data = self.write_rows(folder)
        try:
            return training.train_a_little(adz, data, name, *self.flags(), *flags).manifest
        except AssertionError as failed:
            first = data.read_text(encoding="utf-8").partition("\n")[0]
            failed.add_note(
                f"it learns from rows such as {first}; the attribute `rows` sets others"
            )
            raise

    def first_payload(self, adz: Adz, folder: Path) -> str:
        """The digest of what a run makes; the tests of a class share one run, which takes
        seconds."""
        if type(self) not in _FIRST:
            _FIRST[type(self)] = self.train(adz, folder, "first").payload
        return _FIRST[type(self)]

    def test_it_trains(self, adz: Adz, tiny_base: Any, tmp_path: Path) -> None:
        """As many steps as were asked for, to a finite loss; the version names the plugin."""
        from adapterhub.plugins import load_plugins

        manifest = self.train(adz, tmp_path, "trained")
        _FIRST[type(self)] = manifest.payload
        assert manifest.objective == self.name
        assert manifest.metrics["steps"] == 3, f"{manifest.metrics['steps']} steps, not 3"
        assert math.isfinite(manifest.metrics["train_loss"]), "the loss is not finite"
        assert manifest.metrics["tokens"] > 0, "no token was counted: use RunTrainer"
        wanted = load_plugins().versions_of(self.component)
        recorded = manifest.environment
        assert wanted.items() <= recorded.items(), f"{wanted} is not in {recorded}"

    def test_the_same_run_gives_the_same_bytes(
        self, adz: Adz, tiny_base: Any, tmp_path: Path
    ) -> None:
        """`adz rebuild` makes a version again, and compares."""
        first = self.first_payload(adz, tmp_path)
        again = self.train(adz, tmp_path, "again")
        assert again.payload == first, "two runs of one recipe give other weights"

    def test_the_learning_rate_is_obeyed(self, adz: Adz, tiny_base: Any, tmp_path: Path) -> None:
        """The trainer takes the recipe's settings (`trainer_settings(run)`)."""
        first = self.first_payload(adz, tmp_path)
        slow = self.train(adz, tmp_path, "slow", "-o", "training.lr=1e-5")
        assert slow.payload != first, "the learning rate of the recipe changes nothing"

    def test_accumulation_changes_nothing(self, adz: Adz, tiny_base: Any, tmp_path: Path) -> None:
        """One batch of all rows has the loss of three smaller ones with `training.accumulation=3`,
        the last of which is short. Not of an objective that generates, whose answers differ."""
        if self.component.generates:
            return
        rows = len(self.rows or training.ROWS_OF[self.component.kinds[0]])
        losses = []
        for batch, accumulation in ((rows, 1), (rows // 3 + 1, 3)):
            # One step over the same rows: what the losses differ by is how they are averaged.
            settings = {"batch_size": batch, "accumulation": accumulation, "max_steps": 1}
            flags = [*training.option_flags("training", settings), "-o", "data.holdout=0"]
            made = self.train(adz, tmp_path, f"batches-of-{batch}", *flags)
            losses.append(made.metrics["train_loss"])
        assert math.isclose(*losses, rel_tol=1e-4), (
            f"the loss is {losses[0]:.4f} in one batch and {losses[1]:.4f} in three: a mean over "
            "rows needs self.model_accepts_loss_kwargs = False, one over tokens num_items_in_batch"
        )

    def test_judgements_are_obeyed(
        self, adz: Adz, tiny_base: Any, with_plugin: WithPlugin, tmp_path: Path
    ) -> None:
        """Of pairs and of judged answers: another `rejected` or `desirable` gives other weights.
        `run.collate` ignores both."""
        if self.component.kinds[0] not in _JUDGED:
            return
        first = self.first_payload(adz, tmp_path)
        with_plugin(_OTHER_JUDGEMENTS)
        other = self.train(adz, tmp_path, "other")
        assert other.payload != first, (
            "another `rejected` or `desirable` changes nothing: run.collate ignores both"
        )

    def test_dry_run_commits_nothing(
        self, adz: Adz, registry: Any, tiny_base: Any, tmp_path: Path
    ) -> None:
        """`adz train --dry-run` checks all and stores nothing; a wrong option is one line."""
        before = registry.revision()
        data = self.write_rows(tmp_path)
        flags = self.flags()
        command = ("train", "--base", "tiny", "--data", str(data), *flags, "--dry-run")
        check_success(adz(*command))
        check_refusal(adz(*command, "-o", "objective.no_such_option=1"), code=2)
        assert registry.revision() == before, "--dry-run changed the registry"
