"""A Hub of our own on loopback, and huggingface_hub led to it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub.utils import close_session

sys.path.insert(0, str(Path(__file__).parent))
from hub_answers import TOKEN
from hub_server import HubServer, running_hub
from made import WEIGHTS, Made

from adapterhub.exchange.remotes import open_remote
from adapterhub.protocols import Remote


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """An empty Hub. The token is set; the constants are those that HF_ENDPOINT, HF_HUB_OFFLINE
    and HF_HUB_DISABLE_XET fill when the library is imported."""
    with running_hub() as server:
        constants = huggingface_hub.constants
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + template)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        close_session()
        yield server
        close_session()


@pytest.fixture
def hub_environment(hub: HubServer, tmp_path: Path) -> dict[str, str]:
    """The same for a process of its own."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "hf-home"),
    }


@pytest.fixture
def set_token(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str | None], None]:
    def change(token: str | None) -> None:
        if token is None:
            monkeypatch.delenv("HF_TOKEN")
            monkeypatch.setattr(
                huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token")
            )
        else:
            monkeypatch.setenv("HF_TOKEN", token)

    return change


@pytest.fixture
def remote(home: Path, hub: HubServer) -> Remote:
    """What is below one organisation."""
    return open_remote("hub://org")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    """A version of two files and an artifact, and of more (`__` for a dot)."""

    def run(number: int = 7, seed: bytes = b"", name: str = "sql", **files: bytes) -> Made:
        contents = {
            "adapter_config.json": b'{"r": 4}',
            "adapter_model.safetensors": WEIGHTS + seed,
            "artifacts/curve.csv": b"1\n2\n",
            **{path.replace("__", "."): data for path, data in files.items()},
        }
        return Made(tmp_path, number, contents, name)

    return run
