"""The command line and environment of the child, and why it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import EXIT_USAGE, AdzError
from adapterhub.protocols import ServeSettings
from adapterhub.serve.doors.keys import digest_of
from adapterhub.serve.doors.settings import door_settings
from adapterhub_vllm import machine
from adapterhub_vllm.child import Child, explain_end, lacks_memory
from adapterhub_vllm.launch import command_line, environment
from adapterhub_vllm.settings import VARIABLE, ServerSettings, read_settings
from adapterhub_vllm.tools import with_strict_tools

SETTINGS = ServeSettings(base="tiny", port=8123, max_resident=3)
SERVER = ServerSettings("tiny", 16, 8, door_settings(SETTINGS, 256))


def value_of(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


def test_the_command_line_says_what_was_asked(tiny_base: Any) -> None:
    command = command_line(
        replace(SETTINGS, extra=("--max-num-seqs", "4")), tiny_base, 16, on_cpu=True
    )
    assert command[:3] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    assert value_of(command, "--model") == tiny_base.path
    assert value_of(command, "--served-model-name") == "tiny"
    assert value_of(command, "--max-lora-rank") == "16"
    assert value_of(command, "--max-loras") == "3"
    # The tiny base reads 512 tokens, fewer than the default of a CPU.
    assert value_of(command, "--max-model-len") == "512"
    assert command[-2:] == ["--max-num-seqs", "4"]


def test_on_a_gpu_vllm_keeps_its_own_defaults(tiny_base: Any) -> None:
    command = command_line(SETTINGS, tiny_base, 16, on_cpu=False)
    assert "--max-model-len" not in command
    assert value_of(command, "--dtype") == "auto"
    variables = environment(SETTINGS, SERVER, "own", {}, on_cpu=False)
    assert not [name for name in variables if name.startswith("VLLM_CPU_")]


def test_tools_are_switched_on_by_vllms_own_flags(tiny_base: Any) -> None:
    extra = ("--enable-auto-tool-choice", "--tool-call-parser", "hermes")
    command = command_line(replace(SETTINGS, extra=extra), tiny_base, 16, on_cpu=True)
    assert tuple(command[-3:]) == extra


@pytest.mark.parametrize(
    ("extra", "added"),
    [
        (("--tool-call-parser", "hermes"), ("--tool-strict-level", "parameter")),
        (("--tool_call_parser=hermes",), ("--tool-strict-level", "parameter")),
        (("--tool-call-parser", "hermes", "--tool-strict-level=auto"), ()),
        (("--max-num-seqs", "4"), ()),
    ],
)
def test_arguments_of_tools_keep_to_the_schema_unless_told_otherwise(
    extra: tuple[str, ...], added: tuple[str, ...]
) -> None:
    assert with_strict_tools(extra) == extra + added


@pytest.mark.parametrize(
    "extra",
    ["--model", "--port=1", "--lora-modules", "--trust-remote-code", "--trust_remote_code",
     "--served-model-name", "--middleware", "--api-key", "--max_lora_rank=512", "--uds",
     "--root-path", "--ssl-keyfile", "--allowed-local-media-path"],
)  # fmt: skip
def test_flags_that_are_not_the_users_are_refused(tiny_base: Any, extra: str) -> None:
    with pytest.raises(AdzError, match="cannot be given to vLLM here") as raised:
        command_line(replace(SETTINGS, extra=(extra,)), tiny_base, 16, on_cpu=True)
    assert raised.value.exit_code == EXIT_USAGE


def test_no_key_is_in_the_command_line_or_in_what_the_child_is_told(tiny_base: Any) -> None:
    settings = replace(SETTINGS, api_key="secret")
    server = ServerSettings("tiny", 16, 8, door_settings(settings, 256))
    assert "secret" not in " ".join(command_line(settings, tiny_base, 16, on_cpu=True))
    variables = environment(settings, server, "own", {"VLLM_API_KEY": "other"}, on_cpu=True)
    assert "secret" not in str(variables)
    # For a vLLM without our doors; whoever got in there would need this one.
    assert variables["VLLM_API_KEY"] == "own"
    assert digest_of("secret") in variables[VARIABLE]


def test_a_certificate_is_handed_on(tiny_base: Any) -> None:
    settings = replace(SETTINGS, ssl_certfile=Path("/c.pem"), ssl_keyfile=Path("/k.pem"))
    command = command_line(settings, tiny_base, 16, on_cpu=True)
    assert value_of(command, "--ssl-certfile") == "/c.pem"
    assert value_of(command, "--ssl-keyfile") == "/k.pem"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"VLLM_PLUGINS": "mine"}, "mine,adapterhub"),
        ({"VLLM_PLUGINS": "adapterhub,mine"}, "adapterhub,mine"),
        ({"VLLM_PLUGINS": ""}, "adapterhub"),
    ],
)
def test_a_users_allowlist_of_plugins_stays_in_force(
    given: dict[str, str], expected: str | None
) -> None:
    assert environment(SETTINGS, SERVER, "own", given, on_cpu=True).get("VLLM_PLUGINS") == expected


def test_the_environment_is_offline_and_without_vllms_management() -> None:
    given = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "HF_HUB_OFFLINE": "0", "PATH": "/bin"}
    variables = environment(SETTINGS, SERVER, "own", given, on_cpu=True)
    assert variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "0"
    assert variables["HF_HUB_OFFLINE"] == "1"
    assert variables["VLLM_NO_USAGE_STATS"] == "1"
    assert variables["PATH"] == "/bin"


def test_what_a_user_set_for_the_cpu_wins() -> None:
    given = {"VLLM_CPU_KVCACHE_SPACE": "7", "VLLM_CPU_OMP_THREADS_BIND": "auto"}
    variables = environment(SETTINGS, SERVER, "own", given, on_cpu=True)
    assert variables["VLLM_CPU_KVCACHE_SPACE"] == "7"
    assert variables["VLLM_CPU_OMP_THREADS_BIND"] == "auto"


def test_several_workers_choose_their_own_cores() -> None:
    settings = replace(SETTINGS, extra=("--tensor-parallel-size", "2"))
    assert "VLLM_CPU_OMP_THREADS_BIND" not in environment(settings, SERVER, "own", {}, on_cpu=True)


def test_the_settings_reach_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert read_settings() is None
    for name, value in SERVER.to_environment().items():
        monkeypatch.setenv(name, value)
    assert read_settings() == SERVER


def test_one_thread_for_each_core_is_bound(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Two cores of two threads each, and a third core that this process may not use.
    for cpu, siblings in {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3", 4: "4"}.items():
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    monkeypatch.setattr(machine, "_CPUS", tmp_path)
    monkeypatch.setattr(machine, "_NODES", tmp_path / "no-nodes")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert machine.cores_to_bind() == "0,1"
    assert machine.cores_to_bind(2) == "0|1"
    # There are two cores only.
    assert machine.cores_to_bind(3) is None
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert machine.cores_to_bind() is None
    for node in ("node0", "node1"):
        (tmp_path / "nodes" / node).mkdir(parents=True)
    monkeypatch.setattr(machine, "_NODES", tmp_path / "nodes")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert machine.cores_to_bind() is None


def test_the_cache_is_a_bounded_share_of_memory() -> None:
    assert 1 <= machine.cache_gigabytes() <= 8


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("", "it printed nothing"),
        ("INFO all is well\nlast words\n", "last words"),
        (
            "usage: api_server.py\napi_server.py: error: unrecognized arguments: --foo\n",
            "api_server.py: error: unrecognized arguments: --foo",
        ),
        (
            "(EngineCore pid=7) ERROR 11-22 03:20:10 [core.py:1] Traceback (most recent call):\n"
            "(EngineCore pid=7) ERROR 11-22 03:20:10 [core.py:1] ValueError: no memory left\n"
            "RuntimeError: Engine core initialization failed. See root cause above.\n",
            "ValueError: no memory left",
        ),
        ("ValueError: later\nadz: vllm 9 is not supported\n", "vllm 9 is not supported"),
        (
            "(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause "
            "above. Failed core proc(s): {'EngineCore': -9}\n",
            "its engine was killed by SIGKILL",
        ),
    ],
)
def test_the_line_that_says_why_it_ended(log: str, reason: str) -> None:
    assert explain_end(log) == reason


@pytest.mark.parametrize(
    ("line", "lacks"),
    [
        # As vLLM 0.32, PyTorch and CUDA write it.
        ("ValueError: Available memory on node 0 (16.95/23.54 GiB) on kv cache allocation is less "
         "than requested memory for kv (1000.0 GiB).", True),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp:128] err == 0. DefaultCPUAllocator: can't "
         "allocate memory: you tried to allocate 4 bytes. Error code 12", True),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", True),
        ("ValueError: To serve at least one request with the model's max seq len (8192), 3 GiB KV "
         "cache is needed, which is larger than the available KV cache memory (1 GiB).", True),
        ("ValueError: No available memory for the cache blocks.", True),
        ("OSError: [Errno 12] Cannot allocate memory", True),
        ("its engine was killed by SIGKILL", True),
        ("ValueError: unknown dtype", False),
    ],
)  # fmt: skip
def test_a_start_without_memory_says_what_takes_less(line: str, lacks: bool) -> None:
    assert lacks_memory(explain_end(line + "\n")) is lacks


def run_child(code: str, log: Path) -> Child:
    return Child([sys.executable, "-c", code], dict(os.environ), log)


def wait_for(log: Path, words: str) -> str:
    for _ in range(200):
        text = log.read_text()
        if words in text:
            return text
        time.sleep(0.05)
    raise AssertionError(f"{words!r} never came: {log.read_text()!r}")


@pytest.mark.parametrize("words", ["adapterhub replaced in vllm 9: a, b", None])
def test_what_our_plugin_replaced_is_read_from_the_log(words: str | None, tmp_path: Path) -> None:
    line = f"(EngineCore pid=7) INFO 11-25 17:00:00 [general.py:39] {words}"
    child = run_child(f"print({line!r}); print('more')", tmp_path / "child.log")
    assert child.wait(60)
    assert child.replaced() == words


def test_stopping_ends_the_child_and_its_children(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    child = run_child(
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('grandchild', p.pid, flush=True)\n"
        "time.sleep(600)\n",
        log,
    )
    grandchild = int(wait_for(log, "\n").split()[1])
    child.stop()
    assert child.exit_code() == -signal.SIGTERM
    assert ends(grandchild)


def test_a_child_does_not_outlive_adz(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    code = (
        "import os, sys, time\nfrom pathlib import Path\n"
        "from adapterhub_vllm.child import Child\n"
        "Child([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True);"
        f" time.sleep(600)'], dict(os.environ), Path({str(log)!r}))\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    for _ in range(200):
        if log.exists() and log.read_text().endswith("\n"):
            break
        time.sleep(0.05)
    child = int(log.read_text())
    parent.kill()
    parent.wait()
    assert ends(child)


def ends(pid: int) -> bool:
    """Whether the process ends within some seconds (a zombie of another parent has ended)."""
    for _ in range(100):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False
