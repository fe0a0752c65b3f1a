"""`adz serve` as a child process, for as long as a block of Python runs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from adapterhub.errors import AdzError
from adapterhub.serve.address import api_url
from adapterhub.serve.client import Client

_HOST = "127.0.0.1"
_POLL_SECONDS = 0.2
_STOP_SECONDS = 30


@contextmanager
def serving(
    arguments: Sequence[str], *, home: Path, api_key: str | None, start_seconds: float
) -> Iterator[str]:
    """Run `adz serve ARGUMENTS` on a free port of this machine; yields the URL that answers.

    Raises AdzError with the server's last words when it ends, or does not answer in
    `start_seconds`. However the block ends, the server and all that it started end too.
    """
    port = _free_port()
    url = api_url(_HOST, port)
    command = [sys.executable, "-m", "adapterhub.cli", "serve", *arguments]
    environment = {**os.environ, "ADZ_HOME": str(home)}
    if api_key is not None:
        # Not as an argument, which every user of the machine can read.
        environment["ADZ_SERVE_API_KEY"] = api_key
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*command, "--host", _HOST, "--port", str(port)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for the block, which then stops the server.
            start_new_session=True,
        )
        try:
            _wait_until_ready(Client(url, api_key), process, start_seconds)
            yield url
        except _EndedError as ended:
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines()
            raise AdzError(f"{ended}: {lines[-1] if lines else 'it said nothing'}") from ended
        finally:
            _stop(process)


class _EndedError(Exception):
    """The server did not come up."""


def _wait_until_ready(client: Client, process: subprocess.Popen[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not client.is_there():
        if process.poll() is not None:
            raise _EndedError(f"the server ended with exit code {process.returncode}")
        if time.monotonic() > deadline:
            raise _EndedError(f"the server did not answer within {seconds:.0f} s")
        time.sleep(_POLL_SECONDS)


def _stop(process: subprocess.Popen[bytes]) -> None:
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
            return


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
    return port
