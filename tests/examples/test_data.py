"""The example data sets: unique, apart, and as the script would build them."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples" / "data"
SIZES = {
    "wordnet": (3000, 300),
    "american": (1386, 300),
    "spelling": (4000, 300),
    "spoken": (3000, 300),
}


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    name = "build_example_data"
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def read(name: str) -> list[dict[str, str]]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def key_of(task: str, row: dict[str, str], builder: ModuleType) -> str:
    """The key, from the row as it stands in the file."""
    if task == "wordnet":
        definition = row["prompt"].removeprefix("Definition: ").removesuffix("\nCategory:")
        return builder.gloss_key(definition)
    if task == "american":
        return row["prompt"].removeprefix("British: ").partition("\n")[0][:5]
    if task == "spoken":
        return row["prompt"].removeprefix("Written: ").partition("\n")[0]
    return row["completion"].strip()[:5]


@pytest.mark.parametrize("task", SIZES)
def test_files_have_their_rows(task):
    train, test = read(f"{task}.train.jsonl"), read(f"{task}.test.jsonl")
    assert (len(train), len(test)) == SIZES[task]
    for row in (*train, *test):
        assert set(row) == {"prompt", "completion"}
        assert row["completion"].startswith(" ")
        assert row["completion"].strip()
        assert not row["prompt"].endswith(" ")


@pytest.mark.parametrize("task", SIZES)
def test_prompts_are_unique(task):
    rows = read(f"{task}.train.jsonl") + read(f"{task}.test.jsonl")
    repeated = [p for p, n in Counter(row["prompt"].lower() for row in rows).items() if n > 1]
    assert repeated == []


@pytest.mark.parametrize("task", SIZES)
def test_train_and_test_share_no_key(task, builder):
    train = {key_of(task, row, builder) for row in read(f"{task}.train.jsonl")}
    test = {key_of(task, row, builder) for row in read(f"{task}.test.jsonl")}
    assert train.isdisjoint(test)
    assert all(builder.in_test(key) for key in test)
    assert not any(builder.in_test(key) for key in train)


def test_every_category_has_as_many_rows(builder):
    for part, size in (("train", 300), ("test", 30)):
        counts = Counter(row["completion"].strip() for row in read(f"wordnet.{part}.jsonl"))
        assert counts == dict.fromkeys(builder.WORDNET_CLASSES.values(), size)


def test_numbers_dates_and_times_in_words(builder, tmp_path):
    assert [builder.cardinal(n) for n in (0, 13, 20, 99)] == [
        "zero",
        "thirteen",
        "twenty",
        "ninety-nine",
    ]
    words = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", 8: "eighth", 9: "ninth",
             11: "eleventh", 12: "twelfth", 20: "twentieth", 21: "twenty-first"}  # fmt: skip
    assert {number: builder.ordinal(number) for number in words} == words
    assert builder.year_words(1904) == "oh four"
    assert builder.year_words(1984) == "eighty-four"
    times = {
        (0, 0): "twelve o'clock in the morning",
        (3, 15): "quarter past three in the morning",
        (12, 30): "half past twelve in the afternoon",
        (17, 45): "quarter to six in the afternoon",
        (18, 1): "one past six in the evening",
        (23, 50): "ten to twelve in the evening",
    }
    for (hour, minute), words in times.items():
        assert builder.time_words(hour, minute) == words
    answers = {row.prompt: row.completion for row in builder.spoken_rows(tmp_path)}
    assert answers["Written: 3/5/1940\nSpoken:"] == " the third of May nineteen forty"
    assert answers["Written: $41.30\nSpoken:"] == " forty-one dollars and thirty cents"
    assert len(answers) == 28 * 12 * 99 + 24 * 60 + 98 * 98


def test_build_keeps_families_apart_and_drops_repeated_prompts(builder, tmp_path):
    words = ["agonise", "agonised", "agonising", "colour", "colours", "Colour", "centre", "fibre"]
    rows = [builder.Row(f"British: {w}\nAmerican:", f" {w}", key=w[:5].lower()) for w in words]
    task = builder.Task("words", lambda folder: rows, train=100, test=100)
    files = builder.build(task, tmp_path)
    parts = {
        name.split(".")[1]: [json.loads(line)["completion"].strip() for line in text.splitlines()]
        for name, text in files.items()
    }
    assert sorted(parts["train"] + parts["test"]) == sorted(set(words) - {"Colour"})
    for part, held_out in (("train", False), ("test", True)):
        assert all(builder.in_test(w[:5]) is held_out for w in parts[part])
    assert files == builder.build(task, tmp_path)


def test_licences_are_named():
    text = (DATA / "README.md").read_text(encoding="utf-8")
    assert "Princeton University" in (DATA / "LICENSES" / "WordNet.txt").read_text(encoding="utf-8")
    for needed in ("WordNet", "Apache License 2.0", "creativecommons.org/licenses/by-sa/3.0"):
        assert needed in text
