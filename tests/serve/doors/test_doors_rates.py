"""How many requests there may be in a minute."""

from __future__ import annotations

from typing import Any

import pytest

from adapterhub.serve.doors.keys import new_key
from adapterhub.serve.doors.rates import Rate


def test_a_minute_is_any_sixty_seconds() -> None:
    now = [0.0]
    rate = Rate(lambda: now[0])
    assert [rate.take("a", 3) for now[0] in (0.0, 30.0, 59.0)] == [0, 0, 0]
    now[0] = 59.5
    assert rate.take("a", 3) == pytest.approx(0.5)
    assert rate.take("b", 3) == 0
    assert rate.take("a", None) == 0
    now[0] = 60.0
    assert rate.take("a", 3) == 0
    assert rate.take("a", 3) == pytest.approx(30)
    # Refused requests count for nothing, and a lower limit holds at once.
    assert rate.take("a", 1) == pytest.approx(60)
    now[0] = 200.0
    assert rate.take("c", 3) == 0
    assert list(rate._taken) == ["c"]


def test_requests_a_minute_of_a_key_and_of_an_adapter(serve: Any) -> None:
    site = serve(requests_per_minute=3)
    _, few = new_key("few", requests_per_minute=2)
    _, many = new_key("many")
    assert [site.ask("a", key=few).status_code for _ in range(3)] == [200, 200, 429]
    assert site.get("/v1/models", few).status_code == 429
    assert [site.ask(model, key=many).status_code for model in ("a@1", "a@prod", "b")] == [
        200,
        429,
        200,
    ]
    answer = site.ask("a", key=many)
    assert answer.json()["error"] == {
        "message": "a answers 3 requests a minute",
        "type": "RateLimitError",
        "param": None,
        "code": 429,
    }
    assert 55 <= int(answer.headers["retry-after"]) <= 60
    # A merge is a request to each of its adapters.
    merges = [site.ask("b*0.5 - c", key=many).status_code for _ in range(3)]
    assert merges == [200, 200, 429]
    alone = [site.ask(model, key=many).status_code for model in ("b", "c", "c")]
    assert alone == [429, 200, 429]


def test_a_merge_that_one_adapter_refuses_counts_for_none(serve: Any) -> None:
    site = serve(requests_per_minute=2)
    assert [site.ask("z").status_code for _ in range(2)] == [200, 200]
    assert [site.ask("a*0.5 + z").status_code for _ in range(3)] == [429] * 3
    assert [site.ask("a").status_code for _ in range(3)] == [200, 200, 429]
