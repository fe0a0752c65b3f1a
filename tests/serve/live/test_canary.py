"""A split alias in a real server: users are kept together, and the answers say who answered."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from live_server import Server
from telltale import Teller
from traffic import Answer, Client

from adapterhub.plugins import open_registry

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]

USERS = [f"user-{number}" for number in range(24)]


@pytest.fixture(scope="module")
def canary(teller: Teller) -> Any:
    registry = open_registry()
    for _ in range(3):
        teller.commit("canary")
    registry.tag("canary@1", "prod")
    return registry


def ask(server: Server, requests: list[dict[str, Any]]) -> list[Answer]:
    async def main() -> list[Answer]:
        async with Client(server.url) as client:
            return await asyncio.gather(
                *(client.complete("canary@prod", **request) for request in requests)
            )

    return asyncio.run(main())


def tells_the_truth(teller: Teller, answer: Answer) -> bool:
    return answer.status == 200 and answer.text == teller.words[answer.version] * 3


def test_each_user_gets_one_version_and_the_answer_says_which(
    server: Server, teller: Teller, canary: Any
) -> None:
    canary.split("canary", "prod", {1: 50, 2: 50})
    fields = ["user", "safety_identifier"] * len(USERS)
    for _ in range(2):
        answers = ask(server, [{f: user} for f, user in zip(fields, USERS, strict=False)])
        for user, answer in zip(USERS, answers, strict=True):
            assert tells_the_truth(teller, answer)
            meant = canary.resolve("canary@prod", f"user {user}")
            assert answer.version == meant.reference
    assert len({answer.version for answer in answers}) == 2


def test_a_session_stays_with_its_version_and_strangers_are_drawn(
    server: Server, teller: Teller, canary: Any
) -> None:
    canary.split("canary", "prod", {1: 50, 2: 50})
    for header in ("X-Session-Id", "X-Request-Id"):
        for value in ("a", "b", "c"):
            answers = ask(server, [{"headers": {header: value}}] * 4)
            assert len({answer.version for answer in answers}) == 1
    drawn = ask(server, [{}] * 24)
    assert all(tells_the_truth(teller, answer) for answer in drawn)
    # 2 chances in 2 to the 24th that all are drawn alike.
    assert len(Counter(answer.version for answer in drawn)) == 2


def test_a_rollback_holds_for_the_next_request(server: Server, teller: Teller, canary: Any) -> None:
    canary.split("canary", "prod", {1: 1, 3: 99})
    requests = [{"user": user} for user in USERS[:8]]
    assert {answer.version for answer in ask(server, requests)} >= {"canary@3"}
    assert canary.rollback("canary", "prod").number == 1
    after = ask(server, requests)
    assert {answer.version for answer in after} == {"canary@1"}
    assert all(tells_the_truth(teller, answer) for answer in after)
