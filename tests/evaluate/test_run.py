"""Whole evaluations on the tiny base, in process and through the embedded engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from adapterhub.cli.output import TerminalProgress
from adapterhub.errors import AdzError
from adapterhub.evaluate.run import EvaluationSettings, Score, evaluate
from adapterhub.plugins import open_registry
from adapterhub.protocols import ServeSettings

MAX_TOKENS = 5


def run(*references: str, data: list[Path], **options: Any) -> dict[tuple[str, str], Score]:
    settings = EvaluationSettings(
        references=references, data=tuple(data), **{"max_tokens": MAX_TOKENS, **options}
    )
    scores = evaluate(open_registry(), settings, TerminalProgress())
    return {(score.subject, score.task): score for score in scores}


@pytest.fixture
def server(tiny_base: Any) -> Iterator[str]:
    from adapterhub_transformers.engine import load_service, server_config

    settings = ServeSettings("tiny", api_key="key")
    service = load_service(settings, TerminalProgress())
    config = server_config(service, settings)
    config.port = 0
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        assert thread.is_alive()
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}/v1"
    running.should_exit = True
    thread.join(20)
    service.worker.stop()


def test_each_answers_its_own_task_and_the_base_stands_beside(
    commit_adapter: Any, answers_of: Any, server: str
) -> None:
    versions = {
        "a": commit_adapter("a", seed=1),
        "b": commit_adapter("b", "ia3", seed=2),
        "c": commit_adapter("c", "prompt", seed=3),
    }
    data = [answers_of(f"task-{name}", version) for name, version in versions.items()]
    data.append(answers_of("task-tiny", None))
    here = run(*versions, data=data)
    there = run(*versions, data=data, url=server, api_key="key", attest=False)
    assert list(here) == [
        (subject, f"task-{task}")
        for subject in ("tiny", "a", "b", "c")
        for task in ("a", "b", "c", "tiny")
    ]
    for (subject, task), score in here.items():
        assert (score.score == 1.0) == (task == f"task-{subject}"), (subject, task, score)
        assert there[subject, task].score == score.score
        assert (score.n, score.engine) == (12, "transformers")
    assert there["a", "task-a"].engine == "openai-api"


def test_a_chat_adapter_is_asked_in_chats(
    commit_adapter: Any, answers_of: Any, server: str
) -> None:
    version = commit_adapter("a", seed=1, prompt_format="chat")
    data = [answers_of("chat", version, chat=True)]
    for options in ({}, {"url": server, "api_key": "key"}):
        scores = run("a", data=data, **options)
        assert scores["a", "chat"].score == 1.0
        assert {score.prompt_format for score in scores.values()} == {"chat"}


def test_only_the_base_sees_the_shots(commit_adapter: Any, answers_of: Any) -> None:
    version = commit_adapter("a", seed=1)
    data = [answers_of("own", version)]
    scores = run("a", data=data, shots=2, limit=8)
    assert (scores["a", "own"].score, scores["a", "own"].shots) == (1.0, 0)
    assert (scores["tiny", "own"].shots, scores["tiny", "own"].n) == (2, 8)


def test_the_shots_stand_before_the_question_with_their_answers(
    tiny_base: Any, answers_of: Any, tmp_path: Path
) -> None:
    source = tmp_path / "shots.jsonl"
    source.write_text('{"prompt": "2+2=", "completion": " four\\n"}\n')
    data = [answers_of("shown", None, before="2+2= four\n\n")]
    scores = run("tiny", data=data, shots=1, shots_from=(source,))
    assert scores["tiny", "shown"].score == 1.0
    assert run("tiny", data=data)["tiny", "shown"].score < 1.0


def test_the_scores_are_attested_once_and_say_on_what(commit_adapter: Any, answers_of: Any) -> None:
    import hashlib

    version = commit_adapter("a", seed=1)
    data = answers_of("own", version)
    run("a", "a@1", data=[data])
    attested = open_registry().attestations(version, "evaluation")
    assert len(attested) == 1
    body = attested[0]["body"]
    assert body["data"]["sha256"] == "sha256:" + hashlib.sha256(data.read_bytes()).hexdigest()
    assert (body["score"], body["n"], body["metric"]) == (1.0, 12, "exact_match")
    assert body["interval"] == pytest.approx([0.7575, 1.0], abs=1e-4)
    assert body["base"]["score"] < 1.0
    run("a", data=[data], attest=False)
    assert len(open_registry().attestations(version, "evaluation")) == 1


def test_an_answer_ends_with_its_line_unless_references_have_several(
    tiny_base: Any, tmp_path: Path
) -> None:
    from adapterhub.evaluate.questions import Subject
    from adapterhub.evaluate.run import _cells
    from adapterhub.evaluate.tasks import read_tasks

    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text('{"prompt": "q", "completion": " a\\n"}\n')
    two.write_text('{"prompt": "q", "completion": "a\\nb"}\n')
    subjects = [Subject("tiny", "tiny", None)]
    settings = EvaluationSettings(references=(), data=(one, two))
    tasks = read_tasks([one, two], [], limit=None, shots=0)
    stops = [cell.questions[0].stop for cell in _cells(subjects, tasks, tiny_base, settings)]
    assert stops == [("\n",), ()]


def test_two_bases_and_an_adapter_of_another_base_are_refused(
    commit_adapter: Any, tiny_base: Any, answers_of: Any
) -> None:
    data = [answers_of("task", None)]
    registry = open_registry()
    digests = tiny_base.digests.model_copy(update={"weights": "sha256:" + "0" * 64})
    registry.add_base(tiny_base.model_copy(update={"name": "other", "digests": digests}))
    version = commit_adapter("a")
    with pytest.raises(AdzError, match="2 bases are named"):
        run("tiny", data=data, base="other")
    with pytest.raises(AdzError, match="a@1 was made for tiny, not for other") as caught:
        run("a", data=data, base="other")
    assert caught.value.exit_code == 3
    assert run("a", data=data)["tiny", "task"].score == 1.0
    assert version.number == 1


@pytest.mark.parametrize(
    ("url", "key", "message"),
    [
        ("http://127.0.0.1:9/v1", "key", "no server answers at http://127.0.0.1:9/v1"),
        (None, "wrong", "answered 401: the API key is not right"),
    ],
)
def test_a_server_that_does_not_answer_is_one_error(
    commit_adapter: Any, answers_of: Any, server: str, url: str | None, key: str, message: str
) -> None:
    version = commit_adapter("a")
    data = [answers_of("task", None)]
    with pytest.raises(AdzError, match=message):
        run("a", data=data, url=url or server, api_key=key)
    assert open_registry().attestations(version) == []
