"""The remote `oci` is what every remote promises to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterhub.testing import RemoteConformance


class TestOci(RemoteConformance):
    name = "oci"
    # A registry moves any tag.
    numbers_are_final = False

    @pytest.fixture(autouse=True)
    def in_a_place(self, url: str) -> None:
        """Each test has a path of its own in the registry."""
        self.place = url

    def url(self, folder: Path) -> str:
        return self.place
