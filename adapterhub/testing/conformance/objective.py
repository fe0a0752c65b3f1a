"""What a user of an objective relies on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from adapterhub import specs
from adapterhub.testing.conformance import training
from adapterhub.testing.conformance.base import Conformance, check_refusal, check_success
from adapterhub.testing.fixtures import Adz

_FIRST: dict[type[ObjectiveConformance], str] = {}
"""The payload that the first run of each class made."""


class ObjectiveConformance(Conformance):
    """Of an objective: `name = "mine"`.

    rows: what it learns from; where none are given, 16 of the first of its `kinds`.
    """

    kind: ClassVar[type[specs.Component]] = specs.Objective
    section: ClassVar[str] = "objective"
    rows: ClassVar[Sequence[Mapping[str, Any]]] = ()

    def write_rows(self, folder: Path) -> Path:
        """The rows as a data file in `folder`."""
        rows = self.rows or training.ROWS_OF[self.component.kinds[0]]
        return training.write_rows(folder, rows)

    def flags(self) -> list[str]:
        """`-o objective.name=NAME` and its options."""
        options = training.option_flags("objective", self.options)
        return ["-o", f"objective.name={self.name}", *options]

    def first_payload(self, adz: Adz, folder: Path) -> str:
        """The digest of what a run makes; the tests of a class share one run, which takes
        seconds."""
        if type(self) not in _FIRST:
            version = training.train_a_little(adz, self.write_rows(folder), "first", *self.flags())
            _FIRST[type(self)] = version.manifest.payload
        return _FIRST[type(self)]

    def test_it_trains(self, adz: Adz, tiny_base: Any, tmp_path: Path) -> None:
        """As many steps as were asked for, to a finite loss; the version names the plugin."""
        from adapterhub.plugins import load_plugins

        data = self.write_rows(tmp_path)
        manifest = training.train_a_little(adz, data, "trained", *self.flags()).manifest
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
        again = training.train_a_little(adz, self.write_rows(tmp_path), "again", *self.flags())
        assert again.manifest.payload == first, "two runs of one recipe give other weights"

    def test_the_learning_rate_is_obeyed(self, adz: Adz, tiny_base: Any, tmp_path: Path) -> None:
        """The trainer takes the recipe's settings (`trainer_settings(run)`)."""
        first = self.first_payload(adz, tmp_path)
        flags = (*self.flags(), "-o", "training.lr=1e-5")
        slow = training.train_a_little(adz, self.write_rows(tmp_path), "slow", *flags)
        assert slow.manifest.payload != first, "the learning rate of the recipe changes nothing"

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
