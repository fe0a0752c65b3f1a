"""The shim, and payloads that random work commits."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# The modules beside this file, which are also scripts that the tests start.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled shim."""
    import shim as module

    if not shutil.which("cc"):
        reason = "faults below the C library need a C compiler: run scripts/setup_peers.sh"
        assert not os.environ.get("CI"), reason
        pytest.skip(reason)
    return module.build(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def payloads(tmp_path: Path, make_payload: Callable[..., Path]) -> Path:
    """A folder with four payloads."""
    folder = tmp_path / "payloads"
    folder.mkdir()
    for seed in range(4):
        make_payload(seed).rename(folder / str(seed))
    return folder


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder in memory where that is possible: thousands of registries are written."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)
