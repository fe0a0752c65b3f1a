"""What a user of a command relies on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import click

from adapterhub import specs
from adapterhub.testing.conformance.base import Conformance, check_refusal, check_success
from adapterhub.testing.fixtures import Adz


class CommandConformance(Conformance):
    """Of a command: `name = "mine"`. arguments: of a call that works."""

    kind: ClassVar[type[specs.Component]] = specs.Command
    arguments: ClassVar[Sequence[str]] = ()

    def test_it_is_a_click_command(self) -> None:
        """`impl` is what `@click.command` made."""
        command = self.implementation
        assert isinstance(command, click.Command), f"{type(command).__name__} is no click command"

    def test_its_name_is_free(self) -> None:
        """It would never be called under the name of one of ours."""
        from adapterhub.cli import COMMANDS

        assert self.name not in COMMANDS, f"adz has a command {self.name} of its own"

    def test_help_lists_and_explains_it(self, adz: Adz) -> None:
        """`adz --help` has its summary, and `adz NAME --help` works."""
        listed = check_success(adz("--help"))
        line = next((x for x in listed.splitlines() if x.split()[:1] == [self.name]), "")
        assert self.component.summary.split()[0] in line, f"adz --help does not list {self.name}"
        shown = check_success(adz(self.name, "--help"))
        assert self.implementation.help, "the command has no docstring: its help says nothing"
        assert shown.startswith(f"Usage: adz {self.name}"), shown

    def test_it_runs(self, adz: Adz) -> None:
        """A call that works exits with 0."""
        check_success(adz(self.name, *self.arguments))

    def test_what_it_refuses_is_one_line(self, adz: Adz) -> None:
        """An unknown option is a usage error."""
        check_refusal(adz(self.name, "--no-such-option"), code=2)
