"""`adz keys`: made once, listed without what opens, removed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from adapterhub.serve.doors.keys import digest_of


def test_a_key_is_shown_once(adz: Any, home: Path) -> None:
    made = adz("keys", "new", "ci", "--models", "team/*", "--models", "sql",
               "--requests-per-minute", "60", "--concurrent", "2", "--days", "3")  # fmt: skip
    assert made.code == 0, made.err
    key = made.out.strip()
    assert len(key) > 40
    assert made.err == "the key ci is shown this once: keep it\n"
    for listed in (adz("keys", "ls").out, adz("keys", "ls", "--json").out):
        assert key not in listed
        assert digest_of(key) not in listed
    row = adz("keys", "ls").out.splitlines()[1].split()
    assert row[:5] == ["ci", "team/*,", "sql", "60", "2"]
    (shown,) = json.loads(adz("keys", "ls", "--json").out)
    assert shown["models"] == ["team/*", "sql"]
    assert (shown["requests_per_minute"], shown["concurrent"]) == (60, 2)
    assert shown["expires"] > shown["created"]
    every = json.loads(adz("keys", "new", "all", "--json").out)
    assert every["key"] != key
    assert every["models"] == ["*"]
    assert every["expires"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("new", "ci"), "there is a key ci already (adz keys rm ci)"),
        (("new", "../ci"), "not a valid name"),
        (("new", "x", "--models", "SQL"), "'SQL' can match no name"),
        (("new", "x", "--models", ""), "'' can match no name"),
        (("new", "x", "--days", "0"), "--days"),
        (("rm", "cj"), "unknown key 'cj' (did you mean ci?)"),
        (("rm", "ci", "cj"), "unknown key 'cj'"),
        (("rm",), "NAME"),
    ],
)
def test_a_mistake_changes_nothing(adz: Any, home: Path, arguments: Any, words: str) -> None:
    adz("keys", "new", "ci")
    before = (home / "keys.yaml").read_bytes()
    done = adz("keys", *arguments)
    assert (done.code, done.out) == (2, "")
    assert words in done.err
    assert (home / "keys.yaml").read_bytes() == before


def test_keys_go_one_by_one_or_together(adz: Any) -> None:
    for name in ("a", "b", "c"):
        adz("keys", "new", name)
    assert adz("keys", "rm", "a", "c").out == "removed a, c\n"
    assert [key["name"] for key in json.loads(adz("keys", "ls", "--json").out)] == ["b"]
    adz("keys", "rm", "b")
    assert adz("keys", "ls").out == ""


def test_keys_that_are_made_at_once_are_all_there(adz_process: Any) -> None:
    names = [f"key-{number}" for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda name: adz_process("keys", "new", name), names))
    assert {done.code for done in made} == {0}
    listed = json.loads(adz_process("keys", "ls", "--json").out)
    assert [key["name"] for key in listed] == names
