"""llama.cpp itself (ADZ_TEST_LLAMA_CPP=1), beside transformers with PEFT."""

from __future__ import annotations

import httpx2
import pytest
import torch

from adapterhub import Hub
from adapterhub.testing import EngineConformance

PROMPTS = ("The quick brown", "a", "SELECT name FROM users WHERE")
TOKENS = 16


class TestLlamaCpp(EngineConformance):
    """What every engine promises, and the answers of PEFT."""

    name = "llama-cpp"
    arguments = ("--dtype", "float32")

    def test_greedy_answers_are_pefts(self, base, home, tmp_path):
        for seed in (1, 2):
            self.commit(base, tmp_path, seed)
        wanted = {
            (model, prompt): peft_answer(model, prompt)
            for model in ("sql@1", "sql@2")
            for prompt in PROMPTS
        }
        assert len(set(wanted.values())) == len(wanted)
        with self.serving(base, home) as server:
            given = {
                (model, prompt): server.complete(model, prompt=prompt, max_tokens=TOKENS).json()
                for model, prompt in wanted
            }
        assert {key: answer["choices"][0]["text"] for key, answer in given.items()} == wanted

    def test_rows_at_once_get_what_each_gets_alone(self, base, home, tmp_path):
        self.commit(base, tmp_path, 1)
        with self.serving(base, home) as server:
            asked = [(model, prompt) for prompt in PROMPTS for model in ("sql", base.name)]
            alone = [answer(server.url, *each) for each in asked]
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(len(asked)) as pool:
                together = list(pool.map(lambda each: answer(server.url, *each), asked))
        assert together == alone

    def test_a_weighted_sum_is_a_model_too(self, tiny_adapters, base, home):
        with self.serving(base, home) as server:
            texts = [server.text(m) for m in ("tiny-a*0.7+tiny-b*0.3", "tiny-a", "tiny-b")]
        assert len(set(texts)) == 3

    def test_a_gguf_of_another_model_is_refused(self, adz, base, tmp_path):
        import numpy as np
        from gguf import GGUFWriter

        file = tmp_path / "other.gguf"
        writer = GGUFWriter(file, "llama")
        writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        done = adz(*self.command(base, "18998"), "--", "--gguf", file)
        assert done.code == 1
        assert done.err.splitlines()[-1].startswith(f"adz: llama.cpp cannot load {file}")


def answer(url, model, prompt):
    body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    return httpx2.post(f"{url}/completions", json=body, timeout=120).json()["choices"][0]["text"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    torch.set_num_threads(1)


@torch.no_grad()
def peft_answer(reference, prompt):
    """Greedy, without a cache: nothing of what the engine does."""
    model, tokenizer = Hub().load(reference)
    ids = tokenizer(prompt)["input_ids"]
    answer = []
    for _ in range(TOKENS):
        logits = model.float()(input_ids=torch.tensor([ids + answer])).logits[0, -1]
        token = int(logits.argmax())
        if token == tokenizer.eos_token_id:
            break
        answer.append(token)
    return tokenizer.decode(answer, skip_special_tokens=True)
