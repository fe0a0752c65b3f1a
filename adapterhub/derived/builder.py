"""The process that builds: started when there is work, kept for a while for the next."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from adapterhub.serve.errors import RequestError

_LONGEST_SECONDS = 1800.0
# To start it takes ten times as long as a small merge.
_IDLE_SECONDS = 120.0


class Builder:
    """One child process at most. Used from one event loop, for one build at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._end: asyncio.TimerHandle | None = None

    async def ask(self, asked: Mapping[str, Any], *, keep: bool) -> dict[str, str]:
        """The child's answer; it ends afterwards unless `keep`. Raises RequestError 500 where it
        gives none."""
        if self._end is not None:
            self._end.cancel()
        loop = asyncio.get_running_loop()
        process = self._running()
        overdue = loop.call_later(_LONGEST_SECONDS, process.kill)
        answered = False
        try:
            answer: dict[str, str] = json.loads(await asyncio.to_thread(_exchange, process, asked))
            answered = True
        except (ValueError, OSError):
            what = "the version could not be made, the server's log says why"
            raise RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, what) from None
        finally:
            overdue.cancel()
            if answered and keep:
                self._end = loop.call_later(_IDLE_SECONDS, process.kill)
            else:
                # Also when the server ends: the thread that waits for the child ends with it.
                process.kill()
                self._process = None
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            # The server's own GPUs, threads and libraries are not the child's.
            environment = {
                **{name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
                "CUDA_VISIBLE_DEVICES": "",
                "OMP_NUM_THREADS": "1",
            }
            self._process = subprocess.Popen(
                [sys.executable, "-m", "adapterhub.derived.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
            )
        return self._process


def _exchange(process: subprocess.Popen[bytes], asked: Mapping[str, Any]) -> bytes:
    """One line there, one line back; empty where the process ended."""
    if process.stdin is None or process.stdout is None:
        raise AssertionError("both are pipes")
    process.stdin.write(json.dumps(asked).encode() + b"\n")
    process.stdin.flush()
    return process.stdout.readline()
