"""A server in the background: its own process, which goes on when the terminal is closed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from adapterhub.errors import EXIT_FAILED, AdzError
from adapterhub.serve.lifecycle.log import set_aside
from adapterhub.serve.lifecycle.state import ServerState, log_file, running_servers

_POLL_SECONDS = 0.1
_STOP_SECONDS = 60


def start_detached(
    arguments: Sequence[str], port: int, told: Callable[[str], None] = lambda line: None
) -> ServerState:
    """Run `adz serve ARGUMENTS` in the background and return when it answers.

    told: called with each warning of the server. Raises AdzError with its reason and its exit code
    when it ends before. An exception here, such as Ctrl-C, ends the server too.
    """
    log = log_file(port)
    set_aside(log)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "adapterhub.cli", "serve", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        state = _wait_until_ready(process, log)
    except BaseException:
        _end(process)
        raise
    for line in _lines(log):
        if line.startswith("warning: "):
            told(line.removeprefix("warning: "))
    # It is meant to outlive this process, which must not complain about that.
    process.returncode = 0
    return state


def _wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> ServerState:
    while process.poll() is None:
        for state in running_servers():
            if state.pid == process.pid and state.state == "ready":
                return state
        time.sleep(_POLL_SECONDS)
    said = [line for line in _lines(log) if line.startswith("adz: ")]
    reason = said[-1].removeprefix("adz: ") if said else "it said nothing"
    code = process.returncode if process.returncode > 0 else EXIT_FAILED
    raise AdzError(reason, "" if str(log) in reason else f"its log is {log}", exit_code=code)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()
