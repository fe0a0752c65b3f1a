"""The scripts that write the pages can be imported; a Hub and an OCI registry on this machine;
and `adz` that starts at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..remotes.hub.conftest import hub as hub
from ..remotes.oci.conftest import registry_port as registry_port
from ..remotes.oci.conftest import start_registry as start_registry
from .prefork import preforked

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to stand first in PATH: see `preforked`."""
    with preforked(tmp_path_factory.mktemp("programs")) as folder:
        yield folder
