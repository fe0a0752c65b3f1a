"""The log of a server stays bounded while others have it open."""

from __future__ import annotations

from pathlib import Path

from adapterhub.serve.lifecycle.log import bound, previous, set_aside


def test_a_log_that_is_too_long_is_set_aside_and_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "8000.log"
    with log.open("ab", buffering=0) as engine:
        engine.write(b"x" * 100)
        bound(log, 100)
        assert not previous(log).exists()
        engine.write(b"y")
        bound(log, 100)
        assert previous(log).read_bytes() == b"x" * 100 + b"y"
        engine.write(b"z")
    assert log.read_bytes() == b"z"


def test_a_new_server_begins_with_an_empty_log(tmp_path: Path) -> None:
    log = tmp_path / "8000.log"
    set_aside(log)
    log.write_text("of the last one")
    set_aside(log)
    assert not log.exists()
    assert previous(log).read_text() == "of the last one"
