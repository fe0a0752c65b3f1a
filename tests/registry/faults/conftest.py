"""The shim, and payloads that random work commits."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from adapterhub.exchange.push import push
from adapterhub.exchange.remotes import open_remote
from adapterhub.merge.silent import Silent
from adapterhub_registry.store import LocalRegistry

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


@pytest.fixture
def lived_in(registry: LocalRegistry, payloads: Path) -> LocalRegistry:
    """A registry in which every kind of change happened, but the last removals."""
    from workload import EVERYTHING, Workload

    work = Workload(registry, payloads, 0)
    for kind in EVERYTHING[:-2]:
        work.run(kind)
    for record in registry.bases():
        # Its files are nowhere, which fsck would find.
        registry.remove_base(record.name)
    assert len(registry.versions()) >= 2
    return registry


@pytest.fixture
def share(lived_in: LocalRegistry, tmp_path: Path) -> Path:
    """A directory to which everything was pushed."""
    folder = tmp_path / "share"
    folder.mkdir()
    names = sorted(lived_in.names())
    list(push(lived_in, open_remote(str(folder)), names, Silent(), every=True))
    return folder
