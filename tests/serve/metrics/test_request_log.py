"""The line that each request leaves."""

from __future__ import annotations

import errno
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from adapterhub.serve.metrics import ServedRequest
from adapterhub.serve.metrics.log import RequestLog


def request(**facts: Any) -> ServedRequest:
    return ServedRequest(begun=10.0, **facts)


def test_a_line_says_who_asked_for_what_and_what_answered(tmp_path: Path) -> None:
    log = RequestLog(tmp_path / "x" / "8000.requests.log", "json")
    seen = request(
        reference="sql@prod", version="sql@3", key="ci", path="/v1/completions", id="abc",
        status=200, prompt_tokens=3, generated_tokens=4, first_token=10.25,
    )  # fmt: skip
    log.write(seen, 1.5)
    path = tmp_path / "x" / "8000.requests.log"
    fields = json.loads(path.read_text())
    assert fields.pop("time")[:2] == "20"
    assert fields == {
        "id": "abc", "path": "/v1/completions", "reference": "sql@prod", "version": "sql@3",
        "status": 200, "prompt_tokens": 3, "generated_tokens": 4, "first_token_seconds": 0.25,
        "seconds": 1.5, "key": "ci", "refusal": "",
    }  # fmt: skip
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_a_client_sends_begins_no_line_of_its_own(tmp_path: Path) -> None:
    for form in ("text", "json"):
        path = tmp_path / form
        log = RequestLog(path, form)  # type: ignore[arg-type]
        log.write(request(reference="a\n2026 200 forged\x1b[2J\u2028", status=404), 0.1, "x")
        text = path.read_text()
        assert text.count("\n") == 1
        assert "\x1b" not in text
        assert len(text.splitlines()) == 1


def test_the_log_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "8000.requests.log"
    log = RequestLog(path, "json", most=1000)
    for number in range(100):
        log.write(request(reference=f"a{number}", status=200), 0.1)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [
        "8000.requests.log", *(f"8000.requests.log.{n}" for n in (1, 2, 3))
    ]  # fmt: skip
    assert all(file.stat().st_size <= 1000 for file in files)
    assert json.loads(path.read_text().splitlines()[-1])["reference"] == "a99"
    kept = [json.loads(line) for file in reversed(files) for line in file.read_text().splitlines()]
    numbers = [int(fields["reference"][1:]) for fields in kept]
    assert numbers == list(range(numbers[0], 100))


def test_a_full_disk_costs_lines_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    RequestLog(Path("/dev/full"), "json").write(request(status=200), 0.1)
    path = tmp_path / "8000.requests.log"
    log = RequestLog(path, "json", most=600)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        for _ in range(5):
            log.write(request(status=200), 0.1)
        assert 0 < path.stat().st_size <= 600
    log.write(request(status=200, reference="after"), 0.1)
    assert json.loads(path.read_text())["reference"] == "after"


def fail(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
