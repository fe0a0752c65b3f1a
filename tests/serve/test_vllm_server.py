"""One real vLLM with a real base: base and adapters in one batch, compared with PEFT."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]

KEY = "a-key-for-the-tests"
PROMPTS = (
    "The capital of France is",
    "def add(a, b):\n    return",
    "Water boils at",
    "Once upon a time there was a",
    "SELECT name FROM",
    "The opposite of hot is",
)
# Two engines add up in different orders: float32 over 30 layers.
TOLERANCE = 2e-3
START_SECONDS = 600
# What `adz merge` makes one adapter of: other ranks, other scales, one with rsLoRA.
BOTH = {"few@1": 0.7, "few@2": 0.4}


@dataclass(frozen=True)
class Asked:
    """One answer: who answered, and the log-probability of each token it wrote."""

    model: str
    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]


@dataclass
class Server:
    """A running `adz serve`, and the models that it should agree with."""

    url: str
    home: Path
    process: subprocess.Popen[str]

    def request(self, path: str, body: Any = None, key: str | None = KEY) -> tuple[int, Any]:
        """Status and JSON of a request, outside /v1 where `path` begins with `//`."""
        url = self.url.removesuffix("/v1") + path[1:] if path[:2] == "//" else self.url + path
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                text = response.read().decode()
                return response.status, json.loads(text) if text.startswith("{") else text
        except urllib.error.HTTPError as error:
            text = error.read().decode()
            return error.code, json.loads(text) if text.startswith("{") else text

    def ask_all(self, questions: list[tuple[str, str]]) -> list[Asked]:
        """Every (model, prompt) in flight at once, through the official client."""
        return asyncio.run(_ask_all(self.url, questions))

    def adz(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run `adz` on the server's home."""
        return subprocess.run(
            [sys.executable, "-m", "adapterhub.cli", *arguments],
            env={**os.environ, "ADZ_HOME": str(self.home)},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


async def _ask_all(url: str, questions: list[tuple[str, str]]) -> list[Asked]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=url, api_key=KEY, timeout=300, max_retries=0) as client:

        async def ask(model: str, prompt: str) -> Asked:
            done = await client.completions.create(
                model=model,
                prompt=prompt,
                max_tokens=6,
                temperature=0,
                logprobs=1,
                extra_body={"return_token_ids": True},
            )
            choice: Any = done.choices[0]
            return Asked(
                done.model,
                choice.prompt_token_ids,
                choice.token_ids,
                choice.logprobs.token_logprobs,
            )

        return await asyncio.gather(*(ask(model, prompt) for model, prompt in questions))


def write_adapter(base: Path, folder: Path, seed: int, **options: Any) -> Path:
    """A LoRA adapter with random factors, large enough to change what the base writes."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(seed)
    adapted = get_peft_model(model, LoraConfig(**options))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.03 * torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    (folder / "README.md").unlink()
    return folder


def commit(name: str, folder: Path, method: str = "lora", *, known_base: bool = True) -> Any:
    from adapterhub.manifest import BaseLink, Manifest
    from adapterhub.plugins import open_registry

    registry = open_registry()
    digests = registry.base("smollm2").digests
    link = (
        BaseLink(status="recorded", name="smollm2", digests=digests)
        if known_base
        else BaseLink(status="unknown")
    )
    rank = json.loads((folder / "adapter_config.json").read_text())["r"]
    manifest = Manifest(
        name=name,
        method=method,
        made_by="train" if known_base else "import",
        base=link,
        prompt_format="plain",
        adapter={"rank": rank},
    )
    return registry.commit(manifest, folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An `ADZ_HOME` for this module."""
    from adapterhub.plugins import load_plugins

    folder = tmp_path_factory.mktemp("vllm-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADZ_HOME", str(folder))
        load_plugins.cache_clear()
        yield folder
    load_plugins.cache_clear()


@pytest.fixture(scope="module")
def folders(real_base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The adapters as PEFT wrote them, by the version that they become."""
    parent = tmp_path_factory.mktemp("adapters")
    few = ["q_proj", "v_proj", "down_proj"]
    options: dict[str, dict[str, Any]] = {
        "wide@1": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
        "few@1": {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": few,
            "use_rslora": True,
            "rank_pattern": {"down_proj": 8},
        },
        "few@2": {"r": 8, "lora_alpha": 16, "target_modules": few},
        "late@1": {"r": 8, "lora_alpha": 16, "target_modules": ["o_proj", "gate_proj"]},
        "high@1": {"r": 24, "lora_alpha": 24, "target_modules": few},
        "dora@1": {"r": 8, "lora_alpha": 16, "target_modules": few, "use_dora": True},
    }
    return {
        reference: write_adapter(real_base_dir, parent / reference, seed, **given)
        for seed, (reference, given) in enumerate(options.items(), start=1)
    }


@pytest.fixture(scope="module")
def server(home: Path, real_base_dir: Path, folders: dict[str, Path]) -> Iterator[Server]:
    """`adz serve` with two adapters committed, on a free port and behind a key."""
    from adapterhub.cli import main

    assert main(["base", "add", "smollm2", str(real_base_dir)]) == 0
    commit("wide", folders["wide@1"])
    commit("few", folders["few@1"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "ADZ_HOME": str(home), "ADZ_SERVE_API_KEY": KEY}
    process = subprocess.Popen(
        [sys.executable, "-m", "adapterhub.cli", "serve", "--port", str(port), "--json"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = _kill_later(process, START_SECONDS)
    assert process.stdout is not None
    assert process.stderr is not None
    announced = ""
    for line in iter(process.stdout.readline, ""):
        announced += line
        if line == "}\n":
            break
    watchdog.cancel()
    if not announced:
        pytest.fail(f"adz serve ended: {process.stderr.read()}")
    result = json.loads(announced)
    assert result["url"] == f"http://127.0.0.1:{port}/v1"
    yield Server(result["url"], home, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=90) == 0, process.stderr.read()
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


def _kill_later(process: subprocess.Popen[str], seconds: float) -> Any:
    import threading

    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    return timer


@pytest.fixture(scope="module")
def expected(real_base_dir: Path, folders: dict[str, Path]) -> Any:
    """Log-probabilities by PEFT, for a version or the base, of given tokens after a prompt."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    loaded: dict[str, Any] = {}

    def compute(reference: str, prompt: list[int], tokens: list[int]) -> list[float]:
        if reference not in loaded:
            model = AutoModelForCausalLM.from_pretrained(real_base_dir, dtype=torch.float32)
            if reference in folders:
                model = PeftModel.from_pretrained(model, folders[reference])
            elif reference == "both@1":
                add_deltas(model, folders)
            loaded[reference] = model.eval()
        with torch.no_grad():
            logits = loaded[reference](torch.tensor([prompt + tokens])).logits[0]
        scores = logits[len(prompt) - 1 : -1].log_softmax(-1)
        return [float(scores[place, token]) for place, token in enumerate(tokens)]

    return compute


def add_deltas(model: Any, folders: dict[str, Path]) -> None:
    """Add the weighted updates of `BOTH` to the weights themselves, as PEFT computes each."""
    import torch
    from peft import PeftModel

    for reference, weight in BOTH.items():
        adapted = PeftModel.from_pretrained(model, folders[reference])
        deltas = {
            name: layer.get_delta_weight("default")
            for name, layer in adapted.base_model.model.named_modules()
            if hasattr(layer, "get_delta_weight")
        }
        model = adapted.unload()
        with torch.no_grad():
            for name, delta in deltas.items():
                model.get_submodule(name).weight += weight * delta


def assert_agrees(answer: Asked, reference: str, expected: Any) -> None:
    assert answer.model == reference
    wanted = expected(reference, answer.prompt, answer.tokens)
    assert answer.logprobs == pytest.approx(wanted, abs=TOLERANCE)


def test_base_and_adapters_in_one_batch_agree_with_peft(server: Server, expected: Any) -> None:
    names = {"smollm2": "smollm2", "wide": "wide@1", "few@1": "few@1"}
    questions = [(name, prompt) for prompt in PROMPTS for name in names]
    answers = server.ask_all(questions)
    for (name, _), answer in zip(questions, answers, strict=True):
        assert_agrees(answer, names[name], expected)
    # The adapters are no copies of the base: on the same tokens they disagree with it.
    for (name, _), answer in zip(questions, answers, strict=True):
        if name != "smollm2":
            base = expected("smollm2", answer.prompt, answer.tokens)
            assert answer.logprobs != pytest.approx(base, abs=20 * TOLERANCE)


def test_the_list_of_models_names_what_is_answered(server: Server) -> None:
    status, listed = server.request("/models")
    assert status == 200
    cards = {card["id"]: card for card in listed["data"]}
    assert {"smollm2", "wide", "few"} <= set(cards)
    assert cards["wide"]["parent"] == "smollm2"
    assert cards["wide"]["digest"].startswith("sha256:")
    assert "/" not in json.dumps(cards["wide"]["root"])


def test_a_version_committed_later_answers_the_next_request(
    server: Server, folders: dict[str, Path], expected: Any
) -> None:
    status, error = server.request("/completions", {"model": "late", "prompt": "a"})
    assert status == 404
    assert "late" in error["error"]["message"]
    commit("late", folders["late@1"])
    (answer,) = server.ask_all([("late", PROMPTS[0])])
    assert_agrees(answer, "late@1", expected)


def test_a_moved_alias_answers_with_the_new_weights_at_once(
    server: Server, folders: dict[str, Path], expected: Any
) -> None:
    from adapterhub.plugins import open_registry

    registry = open_registry()
    registry.tag("few@1", "prod")
    (before,) = server.ask_all([("few@prod", PROMPTS[3])])
    assert_agrees(before, "few@1", expected)
    commit("few", folders["few@2"])
    registry.tag("few@2", "prod")
    answers = server.ask_all([("few@prod", PROMPTS[3]), ("few", PROMPTS[3]), ("few@1", PROMPTS[3])])
    for answer, reference in zip(answers, ("few@2", "few@2", "few@1"), strict=True):
        assert_agrees(answer, reference, expected)
    registry.rollback("few", "prod")
    (back,) = server.ask_all([("few@prod", PROMPTS[3])])
    assert_agrees(back, "few@1", expected)


def test_a_merge_is_served_as_the_sum_of_the_updates(server: Server, expected: Any) -> None:
    weights = ",".join(map(str, BOTH.values()))
    done = server.adz("merge", "--linear", *BOTH, "--weights", weights, "--name", "both")
    assert done.returncode == 0, done.stderr
    answers = server.ask_all([("both", prompt) for prompt in PROMPTS])
    for answer in answers:
        assert_agrees(answer, "both@1", expected)


@pytest.mark.parametrize(
    ("model", "status", "words"),
    [
        ("wid", 404, "did you mean wide"),
        ("wide@9", 404, "wide"),
        ("smollm", 404, "smollm2"),
        ("", 400, "no model"),
        (None, 400, "no model"),
        ("../wide", 400, "not a valid name"),
        ("/etc/passwd", 400, "not a valid name"),
        ("./wide", 400, "not a valid name"),
        ("x" * 100_000, 400, "characters"),
    ],
)
@pytest.mark.parametrize("route", ["/completions", "/chat/completions", "//tokenize"])
def test_a_model_that_is_not_served_is_refused(
    server: Server, route: str, model: str | None, status: int, words: str
) -> None:
    body = {"prompt": "a"} if route != "/chat/completions" else {"messages": [_turn("a")]}
    given, error = server.request(route, body if model is None else {**body, "model": model})
    assert given == status
    assert words in error["error"]["message"]
    assert len(error["error"]["message"]) < 300


def test_what_vllm_cannot_serve_is_refused_with_the_reason(
    server: Server, folders: dict[str, Path]
) -> None:
    commit("high", folders["high@1"])
    commit("dora", folders["dora@1"], "dora")
    commit("stray", folders["late@1"], known_base=False)
    reasons = {
        "high": "restart it with --max-rank 32",
        "dora": "--engine transformers",
        "stray": "--base smollm2",
    }
    for model, words in reasons.items():
        status, error = server.request("/completions", {"model": model, "prompt": "a"})
        assert status == 422
        assert words in error["error"]["message"]
    _, listed = server.request("/models")
    assert not set(reasons) & {card["id"] for card in listed["data"]}


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/load_lora_adapter", {"lora_name": "evil", "lora_path": "/tmp"}),
        ("/unload_lora_adapter", {"lora_name": "wide@1"}),
        ("//adapters", {"name": "evil", "src": "/tmp"}),
        ("//invocations", {"model": "wide", "prompt": "a"}),
        ("//inference/v1/generate", {"model": "wide", "token_ids": [1], "sampling_params": {}}),
        ("//sleep", {}),
        ("//collective_rpc", {"method": "f"}),
        ("//scale_elastic_ep", {"new_data_parallel_size": 2}),
    ],
)
def test_the_management_routes_of_vllm_are_off(server: Server, route: str, body: Any) -> None:
    status, error = server.request(route, body)
    assert status == 404
    # From the doors: vLLM itself never saw it.
    assert error["error"]["message"].startswith("Not Found: POST ")


@pytest.mark.parametrize(
    "route",
    ["/models", "/completions", "//tokenize", "//invocations", "//metrics", "//docs",
     "//openapi.json", "//version", "//load", "//ping"],
)  # fmt: skip
def test_every_route_asks_for_the_key(server: Server, route: str) -> None:
    posted = ("/completions", "//tokenize", "//invocations")
    body = {"model": "wide", "prompt": "a"} if route in posted else None
    assert server.request(route, body, key=None)[0] == 401
    assert server.request(route, body, key="wrong")[0] == 401


def test_a_key_of_some_adapters_opens_these(server: Server) -> None:
    made = server.adz("keys", "new", "some", "--models", "few")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()

    def ask(model: str) -> tuple[int, Any]:
        return server.request("/completions", {"model": model, "prompt": "a"}, key)

    status, answer = ask("few@1")
    assert (status, answer["model"]) == (200, "few@1")
    refused = {name: ask(name) for name in ("wide", "wide@1", "smollm2", "nothing", "few@9")}
    assert {status for status, _ in refused.values()} == {404}
    words = {
        error["error"]["message"].replace(repr(name), "NAME")
        for name, (_, error) in refused.items()
    }
    assert words == {"the model NAME does not exist, or this key may not use it"}
    _, listed = server.request("/models", key=key)
    assert {card["id"].partition("@")[0] for card in listed["data"]} == {"few"}
    assert server.request("//metrics", key=key)[0] == 403
    assert server.adz("keys", "rm", "some").returncode == 0
    assert ask("few@1")[0] == 401


def test_a_body_that_is_too_large_is_not_read(server: Server) -> None:
    status, error = server.request("/completions", {"model": "wide", "prompt": "a" * 9 * 2**20})
    assert status == 413
    assert "8388608 bytes" in error["error"]["message"]


def test_health_needs_no_key(server: Server) -> None:
    assert server.request("//health", key=None)[0] == 200


def test_run_and_chat_ask_the_server(server: Server) -> None:
    options = ("--url", server.url, "--api-key", KEY, "--max-tokens", "6")
    done = server.adz("run", "wide", PROMPTS[0], "--plain", "--json", *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "wide@1"
    talked = server.adz("chat", "smollm2", *options, stdin="Hello\nAnd again\n")
    assert talked.returncode == 0, talked.stderr
    assert len(talked.stdout.strip()) > 0
    refused = server.adz("run", "wid", "a", *options)
    assert refused.returncode == 1
    assert "404" in refused.stderr
    assert "wide" in refused.stderr


def test_streaming_says_which_version_answers(server: Server) -> None:
    from openai import OpenAI

    with OpenAI(base_url=server.url, api_key=KEY, timeout=300) as client:
        stream = client.chat.completions.create(
            model="wide",
            messages=[_turn("Hello")],
            max_tokens=5,
            stream=True,  # type: ignore
        )
        pieces = list(stream)
    assert {piece.model for piece in pieces} == {"wide@1"}
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)


def test_a_second_server_on_the_port_is_refused_at_once(server: Server) -> None:
    port = server.url.split(":")[2].removesuffix("/v1")
    done = server.adz("serve", "--port", port)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"adz: port {port} on 127.0.0.1 is in use (choose another with --port)"
    ]


def _turn(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}
