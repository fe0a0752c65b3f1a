"""The file in which a server says how it is."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from adapterhub.protocols import ServeSettings
from adapterhub.serve.lifecycle.process import Process
from adapterhub.serve.lifecycle.state import forget_gone, running_servers, stated

SETTINGS = ServeSettings("tiny", port=8123, own_key="a-secret", drain_seconds=7)


def test_a_server_is_listed_for_as_long_as_it_runs(home: Path) -> None:
    assert running_servers() == []
    with stated(SETTINGS, "transformers") as file:
        (state,) = running_servers()
        assert (state.state, state.base, state.engine) == ("starting", "tiny", "transformers")
        assert state.url == "http://127.0.0.1:8123/v1"
        assert state.process == Process.current()
        assert state.drain_seconds == 7
        file.change("ready")
        file.change("restarting")
        file.change("ready")
        (state,) = running_servers()
        assert (state.state, state.restarts) == ("ready", 1)
        assert forget_gone() == []
    assert running_servers() == []
    assert list((home / "serve").glob("*.json")) == []


def test_only_the_user_reads_the_key_and_nobody_is_shown_it(home: Path) -> None:
    with stated(SETTINGS, "transformers"):
        (path,) = (home / "serve").glob("*.json")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        (state,) = running_servers()
        assert state.key == "a-secret"
        assert "a-secret" not in json.dumps(state.public())


def test_what_a_killed_server_left_is_recognised_and_forgotten(home: Path) -> None:
    with stated(SETTINGS, "transformers"):
        (path,) = (home / "serve").glob("*.json")
        values = json.loads(path.read_text())
        # The same number, begun at another time: a process that took it over.
        stale = path.with_name("8124-1.json")
        stale.write_text(json.dumps({**values, "port": 8124, "began": values["began"] + "0"}))
        path.with_name("8125-2.json").write_text('{"pid": 1')
        assert [state.port for state in running_servers()] == [8123]
        assert [state.port for state in forget_gone()] == [8124]
        assert not stale.exists()
        assert path.exists()


def test_a_reader_never_sees_half_a_file(home: Path) -> None:
    with stated(SETTINGS, "transformers") as file:
        (path,) = (home / "serve").glob("*.json")
        before = path.stat().st_ino
        with path.open() as opened:
            file.change("ready")
            assert json.load(opened)["state"] == "starting"
        assert path.stat().st_ino != before
        assert not list(path.parent.glob("*.part"))
