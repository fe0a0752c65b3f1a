"""What the doors note of each request: figures, refusals by reason, one line in the log."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from adapterhub.serve.doors.keys import new_key
from adapterhub.serve.metrics import exposition
from adapterhub.serve.pulse import Pulse

SECRET = "a prompt that nobody writes down"


def figures(site: Any, name: str) -> dict[tuple[str, ...], float]:
    text = exposition(site.doors._watch.metrics).decode()
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"adapterhub_{name}"
    }


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "requests.log"


def lines(log: Path, count: int) -> list[dict[str, Any]]:
    """So many lines, as soon as they are there: a line is written after its answer."""
    for _ in range(200):
        found = log.read_text().splitlines() if log.exists() else []
        if len(found) >= count:
            return [json.loads(line) for line in found]
        time.sleep(0.01)
    raise AssertionError(f"{count} lines never came: {found}")


def test_refusals_are_counted_by_reason(serve: Any, home: Path, log: Path) -> None:
    _, key = new_key("ci", models=["sql"], requests_per_minute=4)
    site = serve(requests_log=str(log), body_bytes=1000)
    assert site.ask(key="wrong").status_code == 401
    assert site.ask("other", key=key).status_code == 404
    assert site.get("/metrics", key=key).status_code == 403
    assert site.ask(key=key, prompt="x" * 2000).status_code == 413
    site.stub.status = 422
    assert site.ask(key=key).status_code == 422
    site.stub.status = 200
    assert site.ask(key=key).status_code == 200
    assert site.ask(key=key).status_code == 429
    found = lines(log, 7)
    assert [line["refusal"] for line in found] == [
        "key", "not_found", "forbidden", "too_large", "not_servable", "", "key_rate"
    ]  # fmt: skip
    assert [line["key"] for line in found] == ["", *["ci"] * 6]
    assert figures(site, "refusals_total") == {
        (reason,): 1
        for reason in ("key", "not_found", "forbidden", "too_large", "not_servable", "key_rate")
    }


def test_neither_prompts_nor_keys_are_written(serve: Any, home: Path, log: Path) -> None:
    _, key = new_key("ci")
    site = serve(requests_log=str(log))
    site.ask(key=key, prompt=SECRET, user=SECRET)
    site.ask(key="adz_guessed", prompt=SECRET)
    lines(log, 2)
    text = log.read_text() + exposition(site.doors._watch.metrics).decode()
    assert not [word for word in (SECRET, key, "adz_guessed") if word in text]


def test_one_id_from_the_client_to_the_engine_and_the_log(serve: Any, log: Path) -> None:
    site = serve(requests_log=str(log))
    given = site.client.post(
        "/v1/completions", json={"model": "sql"}, headers={"X-Request-Id": "my-id.7"}
    )
    bad = site.client.post(
        "/v1/completions", json={"model": "sql"}, headers={"X-Request-Id": "a b<script>"}
    )
    ids = [given.headers["x-request-id"], bad.headers["x-request-id"]]
    assert ids[0] == "my-id.7"
    assert ids[1].isalnum()
    assert [line["id"] for line in lines(log, 2)] == ids
    sent = [dict(seen["headers"])[b"x-request-id"].decode() for seen in site.stub.seen]
    assert sent == ids


def test_a_client_that_goes_away_is_not_counted_as_answered(serve: Any, log: Path) -> None:
    site = serve(requests_log=str(log))
    with pytest.raises(Exception, match="timed out"):
        site.client.post("/v1/completions", json={"model": "sql", "hold": True}, timeout=0.3)
    assert lines(log, 1)[0]["status"] == 499
    assert figures(site, "requests_total") == {("", "499", ""): 1}


def test_a_stream_that_breaks_is_counted_as_failed(serve: Any, log: Path) -> None:
    site = serve(requests_log=str(log))
    assert site.ask(stream=2, breaks=True).status_code == 200
    assert [(line["status"], line["refusal"]) for line in lines(log, 1)] == [(500, "failed")]
    assert figures(site, "requests_total") == {("", "500", ""): 1}


def test_an_engine_whose_steps_do_not_end_is_not_well(serve: Any) -> None:
    now = [0.0]
    pulse = Pulse(60, lambda: now[0])
    site = serve(pulse=pulse)
    pulse.enter()
    now[0] = 60.0
    assert [site.get(path).status_code for path in ("/health", "/ready")] == [200, 200]
    now[0] = 60.1
    for path in ("/health", "/ready"):
        answer = site.get(path)
        assert (answer.status_code, "no step of the engine ended" in answer.text) == (503, True)
    pulse.beat()
    assert site.get("/health").status_code == 200
