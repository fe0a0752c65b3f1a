"""Gates on the regular expressions in a configuration: no slow one, none that misses."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub_registry.gates.patterns import check_patterns, uncovered

SLOW = [
    "(a|a)*b",
    "(a+)+b",
    "(.*)*x",
    "(?:(?:a?){60}){60}b",
    "(a{0,64}){0,64}b",
    "(a?){30}(a|a){30}b",
    ".*.*.*.*.*.*b",
    r"(\w+\.)*q_proj(?=x)",
    r"(a)\1",
    "(?=(a+)+b)",
]

REAL = [
    r".*\.(q_proj|v_proj)$",
    r"^model\.layers\.(?:[0-9]|1[0-9]|2[0-7])\.self_attn\.(q|k|v|o)_proj$",
    r"model\.layers\.\d+\.mlp\.(?:gate|up|down)_proj",
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
    r"(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj).*?)|(?:\bmodel\.layers\."
    r"[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\.(?:(?:q_proj|k_proj"
    r"|v_proj|o_proj|gate_proj|up_proj|down_proj)))",
    r"^(?!.*vision).*\.(q_proj|v_proj)$",
    r"^(language_model|model)(?=\.).*\.(up_proj|k_proj|down_proj|q_proj|o_proj|v_proj|gate_proj)$",
    r"(.*)(language_model)(.*)(q_proj|k_proj|v_proj|o_proj)$",
]


@pytest.mark.parametrize("key", ["target_modules", "exclude_modules", "layers_pattern"])
@pytest.mark.parametrize("pattern", SLOW)
def test_a_pattern_that_re_cannot_match_in_time_is_refused(
    payload: Path,
    refused: Callable[..., None],
    key: str,
    pattern: str,
    edit_config: Callable[..., None],
) -> None:
    edit_config(payload, **{key: pattern})
    refused(f"{key} could take forever to match")


def test_keys_of_the_rank_pattern_are_patterns_too(
    payload: Path, refused: Callable[..., None], edit_config: Callable[..., None]
) -> None:
    edit_config(payload, rank_pattern={"(a|a)*b": 2})
    refused("rank_pattern.(a|a)*b could take forever")


@pytest.mark.parametrize("pattern", ["(", "a" * 20_000, "(" * 5000 + ")" * 5000, "a{99999999999}"])
def test_what_is_no_pattern_is_refused(
    payload: Path, refused: Callable[..., None], pattern: str, edit_config: Callable[..., None]
) -> None:
    edit_config(payload, target_modules=pattern)
    refused("target_modules")


@pytest.mark.parametrize("pattern", REAL)
def test_published_patterns_pass_and_are_fast(pattern: str) -> None:
    assert check_patterns({"target_modules": pattern}) is None
    names = [f"model.language_model.layers.{n}.self_attn.attn.dense.mlp.other" for n in range(40)]
    compiled = re.compile(pattern)
    start = time.perf_counter()
    for name in names:
        compiled.fullmatch(name)
    assert time.perf_counter() - start < 2


def test_the_worst_pattern_that_passes_ends_in_time() -> None:
    pattern = ".*.*.*.*b"
    assert check_patterns({"target_modules": pattern}) is None
    start = time.perf_counter()
    re.fullmatch(pattern, "model.layers.10.self_attn." * 4)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("pattern", [p for p in REAL if "(?!" not in p and "(?=" not in p])
def test_patterns_match_as_re_does(pattern: str) -> None:
    names = [
        f"{root}layers.{layer}.{block}.{name}"
        for root in ("model.", "language_model.model.", "vision.")
        for layer in (0, 27, 28)
        for block in ("self_attn", "mlp")
        for name in ("q_proj", "up_proj", "other")
    ]
    expected = [name for name in names if not re.fullmatch(pattern, name)]
    assert uncovered(pattern, names) == expected


@pytest.mark.parametrize(
    "targets", [["k_proj"], r".*\.k_proj", ["self_attn"], ["proj"], [], ["model.q_proj"]]
)
def test_weights_that_peft_would_drop_are_refused(
    payload: Path, refused: Callable[..., None], targets: Any, edit_config: Callable[..., None]
) -> None:
    edit_config(payload, target_modules=targets)
    refused("leaves out model.layers.0.self_attn.q_proj (1 of 1 modules)")


@pytest.mark.parametrize(
    "targets",
    [["q_proj"], ["self_attn.q_proj"], "all-linear", None, r".*q_proj", r"(?!x).*q_proj"],
)
def test_targets_that_cover_the_weights_pass(
    payload: Path, check: Callable[..., None], targets: Any, edit_config: Callable[..., None]
) -> None:
    edit_config(payload, target_modules=targets)
    check()
