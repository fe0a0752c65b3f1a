"""Lists: filters, order, pages; and that a page of many adapters looks at few of them."""

from __future__ import annotations

import itertools
import random
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest

from adapterhub.errors import EXIT_USAGE, AdzError
from adapterhub.manifest import (
    BaseDigests,
    BaseLink,
    FileRecord,
    Manifest,
    payload_digest,
    sha256_of,
)
from adapterhub_registry import plan, tables
from adapterhub_registry.journal import Event

Fill = Callable[..., list[dict[str, Any]]]


def test_the_listing_shows_and_filters(commit: Any, registry: Any, make_base: Any) -> None:
    llama, qwen = make_base("llama"), make_base("qwen", seed=1)
    registry.add_base(llama)
    links = {
        name: BaseLink(status="recorded", name=record.name, digests=record.digests)
        for name, record in {"llama": llama, "qwen": qwen}.items()
    }
    commit("sql", base=links["qwen"])
    commit("sql", base=links["llama"], adapter={"rank": 16})
    commit("french", method="dora", base=links["qwen"])
    registry.tag("sql@1", "prod")
    entry = registry.listing()[1]
    assert (entry.name, entry.versions, entry.version, entry.aliases) == ("sql", 2, 2, {"prod": 1})
    assert (entry.method, entry.rank, entry.base) == ("lora", 16, "llama")
    assert entry.size == sum(f.size for f in registry.resolve("sql").manifest.files.values())
    for filters, names in [
        ({"base": "llama"}, ["sql"]),
        ({"base": "qwen"}, ["french"]),
        ({"method": "dora"}, ["french"]),
        ({"alias": "prod"}, ["sql"]),
        ({"alias": "prod", "method": "dora"}, []),
    ]:
        assert [entry.name for entry in registry.listing(**filters)] == names
    with pytest.raises(AdzError, match=r"unknown base 'lama'.*did you mean llama"):
        registry.listing(base="lama")


def test_the_base_filter_goes_by_weights_not_by_name(
    commit: Any, registry: Any, make_base: Any
) -> None:
    registry.add_base(make_base("renamed"))
    digests = make_base("original").digests
    commit("sql", base=BaseLink(status="recorded", name="original", digests=digests))
    assert [entry.name for entry in registry.listing(base="renamed")] == ["sql"]


@pytest.fixture
def fill(registry: Any, make_base: Any) -> Fill:
    """Put versions into the tables without their files; return the facts of each, and the
    aliases as the set of (name, alias, number). One of their bases is known."""
    random_ = random.Random(0)
    record = make_base("base-1")
    digests = record.digests.model_copy(update={"weights": sha256_of(b"base-1")})

    def run(names: int, versions: int = 1) -> list[dict[str, Any]]:
        facts = []
        with registry.database.changing() as change:
            counter = itertools.count(1)
            for name, number in itertools.product(range(names), range(1, versions + 1)):
                fact = _fact(random_, name, number)
                manifest = _manifest(fact)
                body = manifest.canonical()
                _apply(change.connection, next(counter), "commit", fact, body)
                if fact["alias"]:
                    _apply(change.connection, next(counter), "tag", fact)
                if fact["exact_match"] is not None:
                    _apply(change.connection, next(counter), "attest", fact)
                facts.append(fact)
        registry.add_base(record.model_copy(update={"digests": digests}))
        return facts

    return run


def _fact(random_: random.Random, name: int, number: int) -> dict[str, Any]:
    merged = random_.random() < 0.2
    return {
        "name": f"team-{name % 7}/adapter-{name:05d}",
        "version": number,
        "method": random_.choice(["lora"] * 8 + ["dora", "ia3"]),
        "rule": random_.choice(["ties", "linear"]) if merged else None,
        "base": f"base-{random_.randrange(4)}",
        "rank": random_.choice([4, 8, 16]),
        "size": random_.randrange(1, 50),
        "created": f"2026-01-{random_.randrange(1, 29):02d}T00:00:00.000Z",
        "loss": random_.randrange(100) / 100,
        "exact_match": random_.choice([None, random_.randrange(100) / 100]),
        "alias": random_.choice(["", "", "prod", "beta"]),
    }


def _manifest(fact: dict[str, Any]) -> Manifest:
    files = {"adapter_config.json": FileRecord(sha256="sha256:" + "0" * 64, size=fact["size"])}
    weights = sha256_of(fact["base"].encode())
    return Manifest(
        name=fact["name"], version=fact["version"], method=fact["method"],
        made_by="merge" if fact["rule"] else "train",
        recipe={"rule": fact["rule"]} if fact["rule"] else {},
        base=BaseLink(
            status="recorded", name=fact["base"],
            digests=BaseDigests(weights=weights, arch="a", tokenizer="t"),
        ),
        adapter={"rank": fact["rank"]}, metrics={"loss": fact["loss"], "error_of": "x"},
        created=fact["created"], files=files, payload=payload_digest(files),
    )  # fmt: skip


def _apply(
    connection: sqlite3.Connection, seq: int, action: str, fact: dict[str, Any],
    manifest: bytes | None = None,
) -> None:  # fmt: skip
    body: dict[str, Any] = {}
    if manifest is not None:
        body = {"digest": sha256_of(manifest)}
    elif action == "attest":
        score = {"metric": "exact_match", "score": fact["exact_match"]}
        body = {"kind": "evaluation", "body": score}
    event = Event(
        seq, "2026-02-01T00:00:00.000Z", "me", action, fact["name"], fact["version"],
        fact["alias"] if action == "tag" else None, None, body,
    )  # fmt: skip
    tables.apply(connection, event, manifest)


def expected(
    facts: list[dict[str, Any]], query: dict[str, Any], scope: str
) -> list[tuple[str, int]]:
    """What a listing must say, by looking at every version."""
    latest = {fact["name"]: fact for fact in facts}
    # An alias moved to the last version that was given it.
    aliases = {(fact["name"], fact["alias"]): fact["version"] for fact in facts}
    chosen = list(latest.values()) if scope == "latest" else facts
    for key in ("base", "method", "rule"):
        chosen = [f for f in chosen if query.get(key) in (None, f[key])]
    if alias := query.get("alias"):
        holders = {name: number for (name, a), number in aliases.items() if a == alias}
        if scope == "latest":
            chosen = [f for f in chosen if f["name"] in holders]
        else:
            chosen = [f for f in chosen if holders.get(f["name"]) == f["version"]]
    if pattern := query.get("name"):
        chosen = [f for f in chosen if f["name"].startswith(pattern.removesuffix("*"))]
    metric = ""
    if condition := query.get("metric"):
        metric, _, bound = condition.partition(">=")
        chosen = [f for f in chosen if f[metric] is not None and f[metric] >= float(bound or 0)]
    sort = metric if query.get("sort") == "metric" else query.get("sort", "name")
    chosen.sort(key=lambda f: (f[sort], f["name"], f["version"]), reverse="reverse" in query)
    return [(f["name"], f["version"]) for f in chosen]


QUERIES: list[dict[str, Any]] = [
    {},
    {"reverse": True},
    {"base": "base-1"},
    {"method": "ia3", "sort": "size"},
    {"method": "lora", "sort": "created", "reverse": True},
    {"rule": "ties", "sort": "rank"},
    {"base": "base-1", "method": "lora"},
    {"base": "base-1", "method": "dora", "sort": "created", "reverse": True},
    {"base": "base-1", "method": "lora", "sort": "size"},
    {"base": "base-1", "method": "lora", "alias": "prod", "sort": "created"},
    {"base": "base-2", "method": "lora", "sort": "created"},
    {"alias": "prod"},
    {"alias": "prod", "sort": "size", "reverse": True},
    {"alias": "nobody"},
    {"name": "team-3/*"},
    {"name": "team-3/*", "method": "lora", "alias": "beta", "sort": "created"},
    {"metric": "exact_match"},
    {"metric": "exact_match>=0.9"},
    {"metric": "exact_match>=0.2", "sort": "metric", "reverse": True},
    {"metric": "loss>=0.5", "sort": "metric", "base": "base-2"},
    {"metric": "loss>=0.98", "sort": "metric"},
    {"base": "base-0", "rule": "linear", "sort": "rank", "metric": "loss>=0.3"},
]


@pytest.mark.parametrize("few", [1, 30, 10**9], ids=["ordered", "mixed", "by-filter"])
@pytest.mark.parametrize("scope", ["latest", "live"])
def test_every_plan_gives_what_looking_at_every_version_gives(
    fill: Fill, registry: Any, monkeypatch: pytest.MonkeyPatch, few: int, scope: str
) -> None:
    facts = fill(120, 2)
    # The plan depends on what counts as few; its result must not.
    monkeypatch.setattr(plan, "_FEW", few)
    assert any(expected(facts, query, scope) for query in QUERIES)
    for query in QUERIES:
        wanted = expected(facts, query, scope)
        found = registry.listing(scope=scope, **query)
        assert [(entry.name, entry.version) for entry in found] == wanted, query
        page = registry.listing(scope=scope, limit=7, offset=5, **query)
        assert [(entry.name, entry.version) for entry in page] == wanted[5:12], query


def test_a_page_looks_at_few_of_many_adapters(
    fill: Fill, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted in steps of SQLite's machine, which do not depend on the load of this one."""
    fill(3000)
    monkeypatch.setattr(plan, "_FEW", 100)
    steps = [0]

    def count() -> None:
        steps[0] += 100

    with registry.database.reading() as connection:
        connection.set_progress_handler(count, 100)
    for query in QUERIES:
        steps[0] = 0
        registry.listing(limit=10, **query)
        # Looking at every adapter takes more than five steps for each.
        assert steps[0] < 15_000, query
    steps[0] = 0
    registry.resolve("team-1/adapter-00001")
    assert steps[0] < 500


def test_the_last_evaluation_by_a_metric_counts(commit: Any, registry: Any) -> None:
    version = commit(metrics={"relative_error": 0.25, "rows": True, "what": "x"})
    assert registry.listing(metric="relative_error")[0].score == 0.25
    for score in (0.9, 0.5):
        body = {"metric": "exact_match", "score": score}
        registry.attest(version, "evaluation", body)
    registry.attest(version, "note", {"metric": "exact_match", "score": 1})
    assert registry.listing(metric="exact_match>=0.6") == []
    assert registry.listing(metric=" exact_match = 0.5 ")[0].score == 0.5
    for task, score in (("sql", 0.8), ("french", 0.0)):
        body = {"metric": "exact_match", "task": task, "score": score}
        registry.attest(version, "evaluation", body)
    assert registry.listing(metric="exact_match:sql>=0.8")[0].score == 0.8
    assert registry.listing(metric="exact_match")[0].score == 0.0
    # Of a version that is not the latest nothing is shown.
    commit()
    assert registry.listing(metric="exact_match") == []
    assert [e.version for e in registry.listing(metric="exact_match", scope="live")] == [1]


def test_what_was_removed_is_listed_apart(commit: Any, registry: Any) -> None:
    commit(), commit(), commit("french")
    registry.tag("sql@1", "prod")
    registry.remove("sql@2")
    found = registry.listing(scope="removed")
    assert [(e.name, e.version, e.versions) for e in found] == [("sql", 2, 1)]
    assert found[0].removed is not None
    assert found[0].removed > found[0].created
    assert [(e.name, e.version) for e in registry.listing()] == [("french", 1), ("sql", 1)]
    registry.remove("french")
    assert [e.versions for e in registry.listing(scope="removed")] == [0, 1]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"method": "lorra"}, "unknown method 'lorra' (did you mean lora or"),
        ({"rule": "tise"}, "unknown merge rule 'tise' (did you mean ties"),
        ({"metric": "exact_mach>=1"}, "unknown metric 'exact_mach' (did you mean exact_match?)"),
        ({"metric": "exact_match>=high"}, "'high' is not a number"),
        ({"metric": "exact_match ~ 3"}, "'exact_match ~ 3' is no condition"),
        ({"sort": "metric"}, "by which metric should the adapters be sorted?"),
        ({"sort": "sise"}, "unknown order 'sise' (did you mean size?)"),
    ],
)
def test_an_unknown_word_is_refused_with_the_nearest(
    commit: Any, registry: Any, query: dict[str, str], message: str
) -> None:
    registry.attest(commit(), "evaluation", {"metric": "exact_match", "score": 1})
    with pytest.raises(AdzError) as caught:
        registry.listing(**query)
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == EXIT_USAGE


def test_a_method_or_a_rule_that_no_adapter_has_is_an_empty_list(
    commit: Any, registry: Any
) -> None:
    commit()
    assert registry.listing(method="dora") == []
    assert registry.listing(rule="ties") == []


def test_the_nearest_names_are_found_among_many(fill: Fill, registry: Any) -> None:
    fill(800)
    with pytest.raises(AdzError, match="did you mean team-3/adapter-00017 or"):
        registry.resolve("team-3/adaptr-00017")
    with pytest.raises(AdzError, match="did you mean team-0/adapter-00007 or"):
        registry.resolve("taem-0/adapter-00007")
