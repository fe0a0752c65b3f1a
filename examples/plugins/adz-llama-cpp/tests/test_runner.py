"""The thread: rows of several adapters take turns, and each gets what it would get alone."""

from __future__ import annotations

import pytest
from adz_llama_cpp.runner import BATCH, Job, Runner
from fake_llama import FakeLlama

from adapterhub.generate import Sampling
from adapterhub.serve.metrics import Residency

VOCABULARY = 320


class Letters:
    """A tokenizer: one letter a token."""

    def decode(self, tokens, **_):
        return "".join(chr(0x100 + token) for token in tokens)


@pytest.fixture
def started():
    runners = []

    def start(**options):
        model = FakeLlama(VOCABULARY)
        given = {"slots": 3, "max_resident": 8, "residency": Residency(), **options}
        runners.append(Runner(model, Letters(), frozenset({3}), **given))
        return runners[-1], model

    yield start
    for runner in runners:
        runner.stop()
        assert not runner.is_alive()


@pytest.fixture
def adapters(tmp_path):
    files = []
    for name in "ab":
        files.append(tmp_path / f"{name}.gguf")
        files[-1].write_text(name)
    return [None, *files]


def job(file, prompt=(5, 6, 7), tokens=12):
    return Job(file.name if file else "base", file, prompt, Sampling(tokens))


def answers(runner, jobs):
    for one in jobs:
        runner.submit(one)
    return [one.done.result(timeout=60).tokens for one in jobs]


def test_together_each_answers_as_alone(started, adapters):
    wanted = [(file, (5, 6, n)) for file in adapters for n in range(7, 10)]
    alone = [answers(started(slots=1)[0], [job(*each)])[0] for each in wanted]
    assert len(set(map(tuple, alone))) == len(wanted)
    runner, model = started()
    assert answers(runner, [job(*each) for each in wanted]) == alone
    # Those of one adapter went together.
    assert max(model.steps) == 3 * 3


def test_an_adapter_that_comes_while_another_writes_changes_nothing(started, adapters):
    _, a, b = adapters
    (alone,) = answers(started()[0], [job(a)])
    runner, model = started()
    first, second = job(a), job(b)
    heard = []

    def hear(text):
        heard.append(text)
        if len(heard) == 3:
            runner.submit(second)

    first.on_text = hear
    assert answers(runner, [first]) == [alone]
    assert len(second.done.result(60).tokens) == 12
    assert model.loads == [a, b]


def test_text_comes_as_it_is_written(started):
    runner, _ = started()
    pieces = []
    one = Job("base", None, (5,), Sampling(6), on_text=pieces.append)
    runner.submit(one)
    assert one.done.result(60).text == "".join(pieces)
    assert len(pieces) == 6


def test_least_recently_used_adapter_makes_place(started, adapters):
    _, a, b = adapters
    residency = Residency()
    runner, model = started(max_resident=1, residency=residency)
    first = answers(runner, [job(a), job(b), job(a)])
    assert first[0] == first[2] != first[1]
    assert model.loads == [a, b, a]
    assert len(model.loaded) == 1
    assert residency.evictions() == {"a.gguf": 1, "b.gguf": 1}


def test_a_prompt_longer_than_a_step_is_read_in_steps(started):
    runner, model = started()
    prompt = [5 + n % 200 for n in range(2 * BATCH + 3)]
    answers(runner, [job(None, prompt, 2)])
    assert model.steps == [BATCH, BATCH, 3, 1]


def test_one_that_nobody_waits_for_gives_its_slot_back(started):
    runner, _ = started(slots=1)
    long = job(None, tokens=10**9)
    long.on_text = lambda text: long.abandon()
    runner.submit(long)
    assert len(answers(runner, [job(None)])[0]) == 12
    assert long.done.result(60).finish == "abort"


def test_what_fails_is_the_jobs_own(started, adapters, tmp_path):
    runner, _ = started(slots=1)
    lost = job(tmp_path / "gone.gguf")
    runner.submit(lost)
    assert len(answers(runner, [job(adapters[1])])[0]) == 12
    with pytest.raises(FileNotFoundError):
        lost.done.result(60)
