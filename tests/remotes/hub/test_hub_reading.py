"""Reading from the Hub: from any offset, after a break, and with an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import huggingface_hub
import pytest
from hub_server import Fault
from made import WEIGHTS, Made

from adapterhub.errors import AdzError
from adapterhub.exchange.remotes import open_remote
from adapterhub.protocols import Remote, TransferInterruptedError
from adapterhub_remotes import hub_access


def test_a_file_is_read_from_any_offset(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    made = make()
    made.push(remote)
    found = remote.find("sql", "7")
    assert found is not None
    config, weights = (
        next(f for f in made.files if f.name == n)
        for n in ("adapter_config.json", "adapter_model.safetensors")
    )
    for knows_ranges in (True, False):
        hub.knows_ranges = knows_ranges
        for offset in (0, 1, 2**20 + 1, len(WEIGHTS) - 1, len(WEIGHTS)):
            chunks = list(remote.read("sql", found, weights, offset))
            assert b"".join(chunks) == WEIGHTS[offset:]
            assert max(map(len, chunks), default=0) <= 2**20
        assert b"".join(remote.read("sql", found, config, 3)) == b'{"r": 4}'[3:]


def test_the_token_does_not_go_to_another_host(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    made = make()
    made.push(remote)
    made.check(remote, "7")
    assert hub.tokens_at_storage
    assert set(hub.tokens_at_storage) == {None}


def test_a_break_can_be_taken_up(remote: Remote, hub: Any, make: Callable[..., Made]) -> None:
    made = make()
    made.push(remote)
    found = remote.find("sql", "7")
    assert found is not None
    weights = next(f for f in made.files if f.name == "adapter_model.safetensors")
    hub.break_after, hub.breaks = 2**20 + 100, 1
    data = bytearray()

    def read() -> None:
        for chunk in remote.read("sql", found, weights, len(data)):
            data.extend(chunk)

    with pytest.raises(TransferInterruptedError):
        read()
    assert 0 < len(data) <= 2**20 + 100
    read()
    assert bytes(data) == WEIGHTS
    hub.faults.append(Fault("GET", "/storage/", 503))
    with pytest.raises(TransferInterruptedError, match="the Hub answers 503"):
        list(remote.read("sql", found, weights, 0))


def test_a_hub_that_never_answers_is_an_error(
    remote: Remote, hub: Any, make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    make().push(remote)
    found = remote.find("sql", "7")
    assert found is not None
    huggingface_hub.utils.close_session()
    monkeypatch.setattr(hub_access, "_PATIENCE", httpx2.Timeout(0.3))
    monkeypatch.setattr(hub_access, "_TIMEOUT_SECONDS", 0.3)
    hub.faults += [Fault("GET", "/refs", 0), Fault("GET", "/storage/", 0)]
    with pytest.raises(AdzError, match="org/sql cannot be reached: "):
        remote.tags("sql")
    with pytest.raises(TransferInterruptedError, match="org/sql: "):
        list(remote.read("sql", found, make().files[1], 0))


def test_a_huge_manifest_is_not_read(remote: Remote, hub: Any, make: Callable[..., Made]) -> None:
    make().push(remote)
    sha = hub.put("org/sql", {"adapterhub.json": b" " * (2**20 + 1)})
    hub.repositories["org/sql"].tags["v7"] = sha
    with pytest.raises(AdzError, match="larger than 1 MiB") as caught:
        open_remote("hub://org").find("sql", "7")
    assert caught.value.exit_code == 3
