"""The remote `hub` is what every remote promises to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterhub.testing import RemoteConformance


class TestHub(RemoteConformance):
    name = "hub"

    @pytest.fixture(autouse=True)
    def on_loopback(self, hub: Any) -> None:
        """Each test has a Hub of its own."""

    def url(self, folder: Path) -> str:
        return "hub://org"
