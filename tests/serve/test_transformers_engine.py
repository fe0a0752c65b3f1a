"""The embedded engine over a real socket, through the official client, against PEFT itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterhub.generate import Row
from adapterhub.plugins import open_registry
from adapterhub.protocols import ServeSettings

from ..embedded_server import embedded_server

METHODS = ("lora", "rslora", "dora", "ia3", "prefix", "prompt")
PROMPT = "The quick brown"


@dataclass
class Running:
    client: openai.OpenAI
    url: str
    service: Any
    commit: Any

    def complete(self, model: str, prompt: str = PROMPT, **options: Any) -> Any:
        return self.client.completions.create(
            model=model, prompt=prompt, **{"max_tokens": 10, "temperature": 0, **options}
        )


@pytest.fixture
def running(tiny_base: Any, commit_adapter: Any) -> Iterator[Running]:
    with embedded_server(ServeSettings("tiny", max_resident=2)) as (url, service):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        yield Running(client, url, service, commit_adapter)


def expected(base: Path, version: Any | None, prompt: str = PROMPT, count: int = 10) -> str:
    """What PEFT's own greedy `generate` writes, loaded afresh."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if version is not None:
        model = peft.PeftModel.from_pretrained(model, open_registry().path(version))
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = tokenizer(prompt, return_tensors="pt")
    out = model.eval().generate(**ids, max_new_tokens=count, do_sample=False)
    return str(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_as_peft_does(
    running: Running, tiny_base_dir: Path, method: str
) -> None:
    version = running.commit("a", method)
    answer = running.complete("a")
    assert answer.choices[0].text == expected(tiny_base_dir, version)
    assert answer.choices[0].text != running.complete("tiny").choices[0].text
    assert (answer.model, answer.usage.completion_tokens) == ("a@1", 10)


def test_everybody_at_once_with_fewer_places_than_adapters(
    running: Running, tiny_base_dir: Path
) -> None:
    versions = {
        "tiny": None,
        "a@1": running.commit("a", seed=1),
        "a": running.commit("a", seed=2),
        "b": running.commit("b", seed=3),
        "c": running.commit("c", "ia3", seed=4),
        "d": running.commit("d", "prompt", seed=5),
    }
    prompts = [PROMPT, "x", "a rather longer prompt, so that the batch is padded"]
    asked = [(name, prompt) for prompt in prompts for name in versions] * 2
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda pair: running.complete(*pair).choices[0].text, asked))
    wanted = {pair: expected(tiny_base_dir, versions[pair[0]], pair[1]) for pair in set(asked)}
    assert answers == [wanted[pair] for pair in asked]
    assert len(set(wanted.values())) > 10


def test_a_new_version_and_a_moved_alias_answer_the_next_request(
    running: Running, tiny_base_dir: Path
) -> None:
    registry = open_registry()
    first = running.commit("a", seed=1)
    registry.tag("a@1", "prod")
    assert running.complete("a@prod").choices[0].text == expected(tiny_base_dir, first)
    second = running.commit("a", seed=2)
    assert running.complete("a@prod").model == "a@1"
    assert running.complete("a").choices[0].text == expected(tiny_base_dir, second)
    registry.tag("a@2", "prod")
    answer = running.complete("a@prod")
    assert (answer.model, answer.choices[0].text) == ("a@2", expected(tiny_base_dir, second))
    assert running.complete(f"a@{first.digest}").model == "a@1"
    listed = {card.id: card.model_dump() for card in running.client.models.list()}
    assert set(listed) == {"tiny", "a", "a@1", "a@prod"}
    assert listed["a@prod"]["root"] == "a@2"
    assert listed["a@prod"]["digest"] == second.digest


def test_a_chat_goes_through_the_bases_template(running: Running, tiny_base_dir: Path) -> None:
    version = running.commit("a", prompt_format="chat")
    chat = running.client.chat.completions.create(
        model="a",
        messages=[{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        max_tokens=10,
        temperature=0,
    )
    rendered = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert chat.choices[0].message.content == expected(tiny_base_dir, version, rendered)
    assert chat.choices[0].finish_reason == "length"


def test_a_stream_joins_to_the_whole_answer(running: Running) -> None:
    running.commit("a")
    whole = running.complete("a", max_tokens=20)
    pieces = list(
        running.complete("a", max_tokens=20, stream=True, stream_options={"include_usage": True})
    )
    texts = [piece.choices[0].text for piece in pieces if piece.choices]
    assert "".join(texts) == whole.choices[0].text
    assert sum(map(bool, texts)) > 5
    assert pieces[-2].choices[0].finish_reason == "length"
    assert pieces[-1].usage == whole.usage
    asked = {"model": "a", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
    chat = running.client.chat.completions.create(**asked, temperature=0)
    stream = running.client.chat.completions.create(**asked, temperature=0, stream=True)
    deltas = [piece.choices[0].delta for piece in stream]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == chat.choices[0].message.content
    assert sum(bool(delta.content) for delta in deltas) > 5


def test_stop_strings_seeds_and_several_prompts(running: Running, tiny_base_dir: Path) -> None:
    text = expected(tiny_base_dir, None, count=20)
    stop = text[5:8]
    stopped = running.complete("tiny", max_tokens=20, stop=stop).choices[0]
    assert (stopped.text, stopped.finish_reason) == (text[: text.index(stop)], "stop")
    sampled = [
        running.complete("tiny", temperature=1.5, seed=seed).choices[0].text for seed in (1, 1, 2)
    ]
    assert sampled[0] == sampled[1] != sampled[2]
    several = running.client.completions.create(
        model="tiny", prompt=[PROMPT, "x"], max_tokens=10, temperature=0
    )
    assert [c.text for c in several.choices] == [
        expected(tiny_base_dir, None, prompt) for prompt in (PROMPT, "x")
    ]


def test_log_probabilities_are_those_of_peft(running: Running, tiny_base_dir: Path) -> None:
    version = running.commit("a")
    answer = running.complete("a", logprobs=3, max_tokens=6).choices[0]
    base = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32)
    model = peft.PeftModel.from_pretrained(base, open_registry().path(version)).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_base_dir)
    ids = tokenizer(PROMPT)["input_ids"]
    written = model.generate(
        input_ids=torch.tensor([ids]), max_new_tokens=6, do_sample=False, eos_token_id=None
    )[0]
    with torch.no_grad():
        scores = torch.log_softmax(model(written[None]).logits[0].double(), -1)
    wanted = [float(scores[i - 1, written[i]]) for i in range(len(ids), len(written))]
    assert answer.logprobs.token_logprobs == pytest.approx(wanted, abs=1e-4)
    # Greedy: the best alternative is what was written. (Half characters share a text, so the
    # three may be fewer.)
    best = [max(top.values()) for top in answer.logprobs.top_logprobs]
    assert best == answer.logprobs.token_logprobs
    assert max(len(top) for top in answer.logprobs.top_logprobs) == 3


def test_refusals_have_a_status_a_reason_and_the_shape_of_the_api(running: Running) -> None:
    running.commit("sql")
    with pytest.raises(openai.NotFoundError, match="sql"):
        running.complete("sqll")
    for model in ("../../etc", "A B", "sql@0", 7, None, ""):
        with pytest.raises(openai.BadRequestError):
            running.complete(model)  # type: ignore[arg-type]
    missing = httpx.post(f"{running.url}/v1/completions", json={"prompt": "x"})
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "model")
    for options in (
        {"max_tokens": 0},
        {"max_tokens": 600},
        {"temperature": -1},
        {"prompt": ""},
        {"prompt": [[999]]},
        {"extra_body": {"best_of": 3}},
        {"extra_body": {"guided_regex": "a+"}},
    ):
        with pytest.raises(openai.BadRequestError):
            running.complete("sql", **options)
    broken = httpx.post(f"{running.url}/v1/completions", content=b"{")
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, 400)
    assert httpx.get(f"{running.url}/v1/load_lora_adapter").json()["error"]["code"] == 404
    assert running.complete("sql").model == "sql@1"


def test_a_version_of_another_base_is_refused_with_the_reason(
    running: Running, tiny_base: Any
) -> None:
    version = running.commit("sql")
    digests = tiny_base.digests.model_copy(update={"weights": "sha256:" + "0" * 64})
    link = version.manifest.base.model_copy(update={"digests": digests, "name": "other"})
    alien = version.manifest.model_copy(update={"base": link, "name": "alien"})
    open_registry().commit(alien, open_registry().path(version))
    with pytest.raises(openai.UnprocessableEntityError, match="was made for other"):
        running.complete("alien")
    assert "alien" not in {card.id for card in running.client.models.list()}


def test_an_adapter_that_breaks_harms_no_other(running: Running, capsys: Any) -> None:
    broken = running.commit("broken", seed=3)
    running.commit("sql")
    weights = open_registry().path(broken) / "adapter_model.safetensors"
    weights.parent.chmod(0o755)
    weights.chmod(0o644)
    weights.write_bytes(b"\x00" * 32)
    with pytest.raises(openai.UnprocessableEntityError, match="damaged") as caught:
        running.complete("broken")
    assert str(weights.parent.parent) not in caught.value.message
    assert "broken@1 were changed by hand" in capsys.readouterr().err
    assert running.complete("sql").model == "sql@1"


def test_a_client_that_goes_away_frees_the_worker(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.commit("a")
    finished: list[str | None] = []

    class Slow(Row):
        def take(self, logits: torch.Tensor) -> int:
            time.sleep(0.01)
            token = super().take(logits)
            if self.done:
                finished.append(self.result.finish)
            return token

    monkeypatch.setattr("adapterhub_transformers.worker.Row", Slow)
    with pytest.raises(openai.APITimeoutError):
        running.client.with_options(timeout=0.2).completions.create(
            model="a", prompt=PROMPT, max_tokens=490, temperature=0
        )
    stream = running.complete("a", max_tokens=490, stream=True)
    next(iter(stream))
    stream.close()
    assert len(running.complete("tiny", max_tokens=2).choices) == 1
    deadline = time.monotonic() + 10
    while len(finished) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(map(str, finished)) == ["abort", "abort", "length"]


def test_every_route_asks_for_the_key(tiny_base: Any) -> None:
    with embedded_server(ServeSettings("tiny", api_key="secret")) as (url, _):
        for path in ("/v1/models", "/metrics", "/docs", "/v1/load_lora_adapter"):
            assert httpx.get(url + path).status_code == 401
        assert httpx.get(f"{url}/health").status_code == 200
        wrong = {"Authorization": "Bearer wrong"}
        assert httpx.get(f"{url}/v1/models", headers=wrong).status_code == 401
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="secret")
        assert [card.id for card in client.models.list()] == ["tiny"]
