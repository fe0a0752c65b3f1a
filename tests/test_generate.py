"""Batched generation against `PeftModel.generate`, one prompt at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterhub.generate import Sampling, generate
from adapterhub.generate.sampling import choose

PROMPTS = ["hello", "a much longer prompt than that", "x y", "12345"]
CONFIGS = {
    "lora": lambda: peft.LoraConfig(
        r=4, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
    ),
    "dora": lambda: peft.LoraConfig(
        r=4,
        target_modules="all-linear",
        use_dora=True,
        init_lora_weights=False,
        task_type="CAUSAL_LM",
    ),
    "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=6, task_type="CAUSAL_LM"),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=6, task_type="CAUSAL_LM"),
}


@pytest.fixture(scope="module")
def tokenizer(tiny_base_dir: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_base_dir)


@pytest.fixture(params=["base", *CONFIGS])
def model(request: pytest.FixtureRequest, tiny_base_dir: Path) -> Any:
    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32)
    if request.param == "base":
        return base.eval()
    torch.manual_seed(1)
    return peft.get_peft_model(base, CONFIGS[request.param]()).eval()


@pytest.fixture
def plain(tiny_base_dir: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32).eval()


def ids_of(tokenizer: Any, prompts: list[str]) -> list[list[int]]:
    return [tokenizer(p)["input_ids"] for p in prompts]


def alone(model: Any, ids: list[int], count: int, eos: int | None) -> list[int]:
    out = model.generate(
        input_ids=torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=0,
    )
    return out[0, len(ids) :].tolist()


def test_a_mixed_batch_writes_what_peft_writes_for_each_prompt_alone(
    model: Any, tokenizer: Any
) -> None:
    prompts = ids_of(tokenizer, PROMPTS)
    done = generate(model, tokenizer, prompts, [Sampling(12)] * 4, stop_ids=frozenset({3}))
    assert [c.tokens for c in done] == [alone(model, p, 12, 3) for p in prompts]
    assert len({tuple(c.tokens) for c in done}) == 4


def test_each_row_has_its_own_limit_and_stop(plain: Any, tokenizer: Any) -> None:
    prompts = ids_of(tokenizer, PROMPTS)
    whole = [alone(plain, p, 12, None) for p in prompts]
    stop_id = whole[1][4]
    stop_text = tokenizer.decode(whole[2])[3:5]
    samplings = [Sampling(3), Sampling(12), Sampling(12, stop=(stop_text,)), Sampling(12)]
    done = generate(plain, tokenizer, prompts, samplings, stop_ids=frozenset({stop_id}))
    assert (done[0].tokens, done[0].finish) == (whole[0][:3], "length")
    assert done[1].tokens == whole[1][: whole[1].index(stop_id) + 1]
    assert done[1].finish == "stop"
    assert (done[2].finish, stop_text in done[2].text) == ("stop", False)
    assert tokenizer.decode(whole[2]).startswith(done[2].text + stop_text)


def test_pieces_of_a_stream_join_to_the_text_and_never_hold_part_of_a_stop(
    plain: Any, tokenizer: Any
) -> None:
    prompt = ids_of(tokenizer, ["hello"])
    text = generate(plain, tokenizer, prompt, [Sampling(24)], stop_ids=frozenset())[0].text
    stop = text[8:12]
    pieces: list[str] = []

    def collect(row: int, piece: str) -> bool:
        pieces.append(piece)
        return True

    done = generate(
        plain,
        tokenizer,
        prompt,
        [Sampling(24, stop=(stop,))],
        stop_ids=frozenset(),
        on_text=collect,
    )
    assert "".join(pieces) == done[0].text == text[: text.index(stop)]
    assert sum(bool(piece) for piece in pieces) > 1


def test_a_row_that_nobody_waits_for_ends(plain: Any, tokenizer: Any) -> None:
    prompts = ids_of(tokenizer, PROMPTS[:2])
    done = generate(
        plain,
        tokenizer,
        prompts,
        [Sampling(12)] * 2,
        stop_ids=frozenset(),
        on_text=lambda row, text: row != 0,
    )
    assert [(len(c.tokens), c.finish) for c in done] == [(1, "abort"), (12, "length")]


def test_log_probabilities_are_the_models(plain: Any, tokenizer: Any) -> None:
    prompts = ids_of(tokenizer, PROMPTS)
    sampling = [Sampling(5, logprobs=2)] * 4
    done = generate(plain, tokenizer, prompts, sampling, stop_ids=frozenset())
    for prompt, row in zip(prompts, done, strict=True):
        with torch.no_grad():
            logits = plain(torch.tensor([prompt + row.tokens])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits.double(), -1)
        for place, score in enumerate(row.scores):
            assert score.logprob == pytest.approx(float(expected[place, score.token]), abs=1e-4)
            assert [t for t, _ in score.top] == expected[place].topk(2).indices.tolist()


def test_a_seed_fixes_a_sample_whatever_shares_the_batch(plain: Any, tokenizer: Any) -> None:
    prompts = ids_of(tokenizer, PROMPTS)
    hot = Sampling(16, temperature=1.5, seed=7)
    mixed = generate(
        plain,
        tokenizer,
        prompts,
        [hot, Sampling(16), hot, Sampling(16, temperature=1.5, seed=8)],
        stop_ids=frozenset(),
    )
    single = generate(plain, tokenizer, prompts[:1], [hot], stop_ids=frozenset())
    assert mixed[0].tokens == single[0].tokens != alone(plain, prompts[0], 16, None)
    assert mixed[1].tokens == alone(plain, prompts[1], 16, None)


@pytest.mark.parametrize("smallest", [{"top_p": 5e-324}, {"temperature": 5e-324}])
def test_the_smallest_numbers_still_choose_the_best_token(smallest: dict[str, float]) -> None:
    logits = torch.tensor([0.0, 3.0, -1.0])
    sampling = Sampling(1, **{"temperature": 1.0, **smallest})
    assert choose(logits, sampling, torch.Generator()) == 1


def test_a_small_top_p_is_greedy(plain: Any, tokenizer: Any) -> None:
    prompts = ids_of(tokenizer, PROMPTS[:1])
    narrow = Sampling(16, temperature=1.5, top_p=1e-6, seed=1)
    done = generate(plain, tokenizer, prompts, [narrow], stop_ids=frozenset())
    assert done[0].tokens == alone(plain, prompts[0], 16, None)


def test_half_characters_are_held_back(plain: Any, tokenizer: Any) -> None:
    from adapterhub.generate.row import Text

    text = Text(tokenizer, tokenizer("so")["input_ids"])
    pieces = [text.add(token) for token in tokenizer("é!")["input_ids"]]
    assert pieces == ["", "é", "!"]
    text.add(tokenizer("é")["input_ids"][0])
    assert text.rest() == "\N{REPLACEMENT CHARACTER}"
