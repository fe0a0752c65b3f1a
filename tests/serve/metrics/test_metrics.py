"""The figures of a server, read back by Prometheus's own parser."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from adapterhub.serve.metrics import Metrics, ServedRequest, exposition
from adapterhub.serve.metrics.metrics import MOST_PAIRS
from adapterhub.serve.metrics.rates import History
from adapterhub.serve.metrics.reading import parse_metrics, quantile


def samples(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """Name to label values (in the order of their names) to value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(exposition(metrics).decode()):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def ended(metrics: Metrics, reference: str, version: str, **facts: Any) -> None:
    request = ServedRequest(reference=reference, version=version, begun=0.0, **facts)
    metrics.begin(request)
    metrics.end(request, facts.get("seconds", 1.0))


def test_what_was_asked_and_what_answered_are_counted_apart() -> None:
    metrics = Metrics()
    ended(metrics, "sql@prod", "sql@3", status=200, prompt_tokens=5, generated_tokens=7)
    ended(metrics, "sql@prod", "sql@4", status=200, prompt_tokens=1, generated_tokens=2)
    ended(metrics, "sql@prod", "sql@4", status=500)
    ended(metrics, "no-such-name", "", status=404)
    found = samples(metrics)
    assert found["adapterhub_requests_total"] == {
        ("sql@prod", "200", "sql@3"): 1,
        ("sql@prod", "200", "sql@4"): 1,
        ("sql@prod", "500", "sql@4"): 1,
        ("", "404", ""): 1,
    }
    assert found["adapterhub_prompt_tokens_total"]["sql@prod", "sql@3"] == 5
    assert found["adapterhub_generated_tokens_total"]["sql@prod", "sql@4"] == 2


def test_names_that_clients_invent_make_no_labels() -> None:
    metrics = Metrics()
    for number in range(50):
        ended(metrics, f"invented-{number}", "", status=404)
    assert samples(metrics)["adapterhub_requests_total"] == {("", "404", ""): 50}


def test_beyond_some_hundreds_all_is_other() -> None:
    metrics = Metrics()
    for number in range(MOST_PAIRS + 100):
        ended(metrics, f"a@{number}", f"a@{number}", status=200, first_token=0.02)
    found = samples(metrics)
    assert len(found["adapterhub_requests_total"]) == MOST_PAIRS + 1
    assert found["adapterhub_requests_total"]["other", "200", "other"] == 100
    assert found["adapterhub_first_token_seconds_count"]["other", "other"] == 100
    waiting = [ServedRequest(reference=f"b@{n}", version=f"b@{n}") for n in range(50)]
    for request in waiting:
        metrics.begin(request)
    assert samples(metrics)["adapterhub_requests_waiting"] == {("other", "other"): 50}


def test_histograms_are_cumulative_and_complete() -> None:
    metrics = Metrics()
    for first in (0.001, 0.03, 0.03, 99.0):
        ended(metrics, "a", "a@1", status=200, first_token=first)
    found = samples(metrics)
    buckets = {le: n for (le, *_), n in found["adapterhub_first_token_seconds_bucket"].items()}
    assert buckets["0.005"] == 1
    assert (buckets["0.025"], buckets["0.05"], buckets["60.0"]) == (1, 3, 3)
    assert buckets["+Inf"] == found["adapterhub_first_token_seconds_count"]["a", "a@1"] == 4
    assert found["adapterhub_first_token_seconds_sum"]["a", "a@1"] == pytest.approx(99.061)


def test_who_waits_stands_under_what_the_name_meant_last() -> None:
    metrics = Metrics()
    ended(metrics, "sql", "sql@1", status=200)
    waiting, inside = ServedRequest(reference="sql"), ServedRequest(reference="sql")
    inside.admitted = True
    inside.answered_by("sql@2")
    metrics.begin(waiting)
    metrics.begin(inside)
    found = samples(metrics)
    assert found["adapterhub_requests_waiting"] == {("sql", "sql@1"): 1}
    assert found["adapterhub_requests_in_flight"] == {("sql", "sql@2"): 1}
    metrics.end(waiting, 1)
    assert "adapterhub_requests_waiting" not in samples(metrics)


def test_where_adapters_are_and_what_loading_cost() -> None:
    metrics = Metrics()
    metrics.residency.loaded("a@1", 0.5)
    metrics.residency.loaded("b@1", 0.25)
    metrics.residency.evicted("a@1")
    metrics.residency.loaded("a@1", 0.5)
    metrics.residency.loaded("c@1", 0.25)
    metrics.residency.order(["b@1", "a@1"], 1)
    found = samples(metrics)
    places = {("slot", "a@1"): 1, ("cpu", "b@1"): 1, ("disk", "c@1"): 1}
    assert found["adapterhub_resident"] == places
    assert found["adapterhub_loads_total"] == {("a@1",): 2, ("b@1",): 1, ("c@1",): 1}
    assert found["adapterhub_load_seconds_total"]["a@1",] == 1.0
    assert found["adapterhub_evictions_total"] == {("a@1",): 1}


def test_a_quantile_is_interpolated_in_its_bucket() -> None:
    buckets = {0.1: 10.0, 0.2: 20.0, float("inf"): 20.0}
    assert quantile(0.5, buckets) == pytest.approx(0.1)
    assert quantile(0.75, buckets) == pytest.approx(0.15)
    assert quantile(0.05, buckets) == pytest.approx(0.01)
    # What is beyond the last bound is at least there.
    assert quantile(0.95, {0.1: 1.0, float("inf"): 10.0}) == 0.1
    assert quantile(0.5, {}) is None
    assert quantile(0.5, {0.1: 0.0, float("inf"): 0.0}) is None


def test_rates_are_those_of_the_last_interval() -> None:
    metrics, history = Metrics(), History()
    ended(metrics, "a", "a@1", status=200, generated_tokens=100, first_token=0.03)
    first = parse_metrics(exposition(metrics).decode())
    first.time = 100.0
    (before,) = history.add(first)
    assert (before.requests_per_second, before.figures.requests) == (0.0, 1)
    assert before.first_token_p50 is not None
    for reference in ("a", "a@prod"):
        ended(metrics, reference, "a@1", status=200, generated_tokens=30, first_token=0.3)
    second = parse_metrics(exposition(metrics).decode())
    second.time = 102.0
    (rates,) = history.add(second)
    assert (rates.requests_per_second, rates.tokens_per_second) == (1.0, 30.0)
    assert rates.figures.requests == 3
    # After a minute the first answer is no longer looked at.
    third = parse_metrics(exposition(metrics).decode())
    third.time = 163.0
    (later,) = history.add(third)
    assert later.first_token_p50 is None or later.first_token_p50 > 0.25
