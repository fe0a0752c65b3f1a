"""The servers that are compared: ours, and plain vLLM with the same model and adapters."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving.zoo import ADZ, BASE, PAYLOADS, RANK, Zoo, fold

START_SECONDS = 400
CONTEXT = 2048
SERVERS = {
    "ours": "adz serve",
    "tuned": "vLLM's kernels, our settings",
    "stock": "vLLM as it comes",
    "folded": "one adapter folded in, vLLM compiled, no LoRA",
}


@dataclass(frozen=True)
class Running:
    """A server that answers: its port, and how long it took to."""

    kind: str
    port: int
    started: float

    def models(self, adapters: int) -> list[str]:
        """Names of so many adapters, the base's for none."""
        if self.kind == "folded" or not adapters:
            return [BASE]
        return [f"a{i}" for i in range(adapters)]


@contextmanager
def running(kind: str, zoo: Zoo, folder: Path, *, resident: int = PAYLOADS) -> Iterator[Running]:
    """Start one, wait until it answers, stop it with all of its children."""
    port = free_port()
    command, environment = commands(kind, zoo, folder, port, resident)
    log = folder / f"{kind}-{port}.log"
    begun = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until_ready(process, port, log)
        yield Running(kind, port, time.perf_counter() - begun)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def commands(
    kind: str, zoo: Zoo, folder: Path, port: int, resident: int
) -> tuple[list[str], dict[str, str]]:
    """What to run, and its environment."""
    environment = zoo.environment()
    if kind == "ours":
        command = [*ADZ, "serve", BASE, "--port", str(port), "--max-resident", str(resident)]
        return [*command, "--max-rank", str(RANK)], environment
    # An empty list of plugins: nothing of ours is in it.
    environment |= {"VLLM_PLUGINS": "", "VLLM_NO_USAGE_STATS": "1"}
    model = fold(zoo, folder / "folded") if kind == "folded" else zoo.base
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", str(model), "--served-model-name", BASE, "--host", "127.0.0.1",
        "--port", str(port), "--dtype", "float32",
    ]  # fmt: skip
    if kind != "folded":
        modules = [f"a{i}={path}" for i, path in enumerate(zoo.folders)]
        command += ["--enable-lora", "--max-lora-rank", str(RANK), "--max-loras", str(resident)]
        command += ["--lora-modules", *modules]
    if kind == "stock":
        # Its 0.92 asks for more than its own front end leaves of 24 GiB.
        command += ["--gpu-memory-utilization", "0.7"]
    else:
        environment |= our_settings()
        command += ["--max-model-len", str(CONTEXT), "--disable-uvicorn-access-log"]
    return command, environment


def our_settings() -> dict[str, str]:
    """What `adz serve` sets for vLLM on this machine."""
    from adapterhub_vllm.machine import cache_gigabytes, cores_to_bind

    cores = cores_to_bind()
    bound = {"VLLM_CPU_OMP_THREADS_BIND": cores} if cores else {}
    return {"VLLM_CPU_KVCACHE_SPACE": str(cache_gigabytes()), **bound}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until /health answers; a server that ends before is an error."""
    begun = time.monotonic()
    while time.monotonic() - begun < START_SECONDS:
        if process.poll() is not None:
            sys.exit(f"a server ended, see {log}")
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    sys.exit(f"a server does not answer, see {log}")
