"""Push and pull beside skopeo, on a docker-registry of this machine; both verify every byte."""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapterhub.cli.output import TerminalProgress
from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.exchange.remotes import open_remote
from adapterhub_registry.store import LocalRegistry
from registry_speed import adapters
from registry_speed.timing import median, seconds

PROGRAMS = ("docker-registry", "skopeo")


def available() -> bool:
    """Whether both programs are installed."""
    return all(shutil.which(name) for name in PROGRAMS)


def measure(directory: Path, rounds: int) -> dict[str, float]:
    """MiB a second, the median of `rounds`, of push, pull and skopeo's copy of one version.

    A push is to a registry that has nothing of it. A pull ends with a version that is committed;
    skopeo's copy ends with an OCI layout or with the files in the registry.
    """
    payload, base = adapters.large(directory)
    registry = LocalRegistry(directory / "home-push")
    registry.add_base(base)
    registry.commit(adapters.manifest("large", base), payload)
    size = sum(path.stat().st_size for path in payload.iterdir()) / 2**20
    found: dict[str, list[float]] = {"push": [], "pull": [], "skopeo out": [], "skopeo in": []}
    for index in range(rounds):
        with docker_registry(directory / f"docker-{index}") as port:
            place = f"127.0.0.1:{port}/round"
            remote = open_remote(f"oci://{place}")
            found["push"].append(
                seconds(lambda remote=remote: list(
                    push(registry, remote, ["large"], TerminalProgress())
                ))
            )  # fmt: skip
            other = LocalRegistry(directory / f"home-pull-{index}")
            other.add_base(base)
            found["pull"].append(
                seconds(lambda remote=remote, other=other: list(
                    pull(other, remote, ["large"], TerminalProgress())
                ))
            )  # fmt: skip
            layout = f"oci:{directory / f'layout-{index}'}:1"
            image = f"docker://{place}/large:1"
            found["skopeo out"].append(seconds(lambda a=image, b=layout: _skopeo(a, b)))
            copy = f"docker://{place}/copied:1"
        with docker_registry(directory / f"empty-{index}") as port:
            copy = f"docker://127.0.0.1:{port}/copied:1"
            found["skopeo in"].append(seconds(lambda a=layout, b=copy: _skopeo(a, b)))
    return {name: 1000 * size / median(times) for name, times in found.items()}


@contextmanager
def docker_registry(folder: Path) -> Iterator[int]:
    """An empty docker-registry for the length of the block; its port on loopback."""
    folder.mkdir(parents=True)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    configuration = folder / "config.yml"
    configuration.write_text(
        f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}'}}\n"
    )
    silent = subprocess.DEVNULL
    process = subprocess.Popen(
        ["docker-registry", "serve", configuration], stdout=silent, stderr=silent
    )
    try:
        _wait(port)
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _wait(port: int) -> None:
    for _ in range(200):
        try:
            http.client.HTTPConnection("127.0.0.1", port, timeout=1).connect()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("docker-registry does not answer")


def _skopeo(source: str, target: str) -> None:
    options = ["--src-tls-verify=false"] if source.startswith("docker:") else []
    options += ["--dest-tls-verify=false"] if target.startswith("docker:") else []
    command = ["skopeo", "--insecure-policy", "copy", "--quiet", *options, source, target]
    subprocess.run(command, check=True)
