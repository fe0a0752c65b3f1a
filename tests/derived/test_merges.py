"""Merges on request, end to end: the embedded engine, builds in child processes, the registry."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import peft
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterhub.plugins import open_registry
from adapterhub.protocols import Derivations

Serve = Callable[[Derivations], Any]
SUM = "sql*0.7+french*0.3"


def message(response: Any) -> str:
    return str(response.json()["error"]["message"])


def answer_of_peft(base: Path, weights: dict[str, float]) -> str:
    """What the base answers with the weighted sum of the updates in its weights."""
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    total = {name: value.clone() for name, value in plain.state_dict().items()}
    for reference, weight in weights.items():
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        registry = open_registry()
        adapted = peft.PeftModel.from_pretrained(model, registry.path(registry.resolve(reference)))
        for name, value in adapted.merge_and_unload().state_dict().items():
            total[name] += weight * (value - plain.state_dict()[name])
    plain.load_state_dict(total)
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = tokenizer("The quick", return_tensors="pt")
    out = plain.generate(**ids, max_new_tokens=8, do_sample=False)
    return str(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


def test_a_merge_is_made_once_and_anyone_can_make_it_again(
    serve: Serve, commit_adapter: Any, adz: Any, tiny_base_dir: Path
) -> None:
    for seed, name in enumerate(("sql", "french")):
        commit_adapter(name, seed=seed + 1)
    ask = serve(Derivations())
    spellings = (SUM, "french * 0.3 + sql@1*0.7", "linear(sql*.70+french*0.3)")
    # At once: one of them builds, the others wait for it.
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(ask, spellings))
    assert {a.status_code for a in answers} == {200}, [a.text for a in answers]
    assert len({a.json()["model"] for a in answers}) == 1
    assert answers[0].json()["choices"][0]["text"] == answer_of_peft(
        tiny_base_dir, {"sql": 0.7, "french": 0.3}
    )
    assert float(answers[0].headers["x-adz-relative-error"]) < 1e-5
    reference = answers[0].json()["model"]
    version = open_registry().resolve(reference)
    assert (version.number, version.name[:8]) == (1, "derived/")
    assert [(p.name, p.weight) for p in version.manifest.parents] == [("french", 0.3), ("sql", 0.7)]

    ours = adz("merge", SUM, "--name", "by-hand")
    assert ours.code == 0, ours.err
    assert open_registry().resolve("by-hand").manifest.payload == version.manifest.payload
    assert adz("rebuild", reference).code == 0
    assert "derived" not in adz("ls").out
    assert version.name in adz("ls", "--name", "derived/*").out
    # It answers under its own name, too.
    assert ask(reference).json()["model"] == reference


def test_a_moved_alias_is_another_merge(serve: Serve, commit_adapter: Any) -> None:
    commit_adapter("sql", seed=1)
    commit_adapter("sql", seed=2)
    commit_adapter("french", seed=3)
    registry = open_registry()
    registry.tag("sql@1", "prod")
    ask = serve(Derivations())
    text = "ties(sql@prod+french,density=0.4)"
    first = ask(text).json()["model"]
    registry.tag("sql@2", "prod")
    second = ask(text).json()["model"]
    assert first != second
    assert registry.resolve(second).manifest.parents[1].version == 2
    assert registry.resolve(second).manifest.recipe["density"] == 0.4
    registry.rollback("sql", "prod")
    assert ask(text).json()["model"] == first


def test_the_least_recently_used_merge_goes(serve: Serve, commit_adapter: Any) -> None:
    commit_adapter("sql", seed=1)
    commit_adapter("french", seed=2)
    ask = serve(Derivations(merges=2))
    one, two = (ask(f"sql*{w}+french").json()["model"] for w in (1, 2))
    assert ask("sql*1+french").json()["model"] == one
    three = ask("sql*3+french").json()["model"]
    kept = {version.reference for version in open_registry().versions()}
    assert kept == {"sql@1", "french@1", one, three}
    # Made again, it has the same bytes, whether its files were still there or not.
    again = open_registry().resolve(ask("sql*2+french").json()["model"])
    assert again.name == two.partition("@")[0]


def test_what_cannot_be_merged_is_refused(serve: Serve, commit_adapter: Any) -> None:
    for seed, name in enumerate(("sql", "french", "other")):
        commit_adapter(name, seed=seed)
    commit_adapter("soft", "prompt", seed=4)
    refusals = {
        "sql*0.7+*0.3": (400, "at character 9, '*0.3': expected an adapter"),
        "sql*0.7+frensh*0.3": (404, "french"),
        "sql+sql@1": (400, "named twice"),
        "sql+tiny": (400, "is the base"),
        "teis(sql+french)": (400, "ties"),
        "ties(sql+french,density=2)": (400, "density"),
        "linear(sql+french,density=0.5)": (400, "has no density"),
        "breadcrumbs(sql+french,gama=1)": (400, "gama"),
        "slerp(sql+french+other)": (400, "takes two adapters"),
        "sql*0.5": (400, "names one adapter"),
        "sql+soft": (422, "soft"),
        "linear(sql+french,rank=1)": (422, "may be"),
    }
    ask = serve(Derivations())
    for model, (status, words) in refusals.items():
        response = ask(model)
        assert (response.status_code, words in message(response)) == (status, True), response.text
    # Refused at once, without another build.
    begun = time.monotonic()
    assert ask("linear(sql+french,rank=1)").status_code == 422
    assert time.monotonic() - begun < 0.5
    assert {v.name for v in open_registry().versions()} == {"sql", "french", "other", "soft"}


def test_it_can_be_switched_off_and_a_request_waits_only_so_long(
    serve: Serve, commit_adapter: Any
) -> None:
    commit_adapter("sql", seed=1)
    commit_adapter("french", seed=2)
    response = serve(Derivations(merges=0))(SUM)
    assert (response.status_code, "makes no merges" in message(response)) == (422, True)
    response = serve(Derivations(wait_seconds=0.01))(SUM)
    assert (response.status_code, response.headers["retry-after"]) == (503, "10")


def test_a_key_opens_an_expression_whose_adapters_it_opens(
    serve: Serve, commit_adapter: Any, adz: Any
) -> None:
    for seed, name in enumerate(("sql", "french", "secret")):
        commit_adapter(name, seed=seed)
    key = adz("keys", "new", "some", "--models", "sql", "--models", "french").out.strip()
    ask = serve(Derivations())
    assert ask(SUM, key).status_code == 200
    for model in ("sql+secret", "ties(secret+sql)", "sql+nothing"):
        response = ask(model, key)
        assert (response.status_code, repr(model) in message(response)) == (404, True)
    # It reaches the merge by what it is made of only.
    (made,) = open_registry().listing(name="derived/*")
    assert ask(made.name, key).status_code == 404
    assert ask(SUM).status_code == 401
