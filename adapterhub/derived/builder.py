"""The process that builds: started when there is work, kept for a while for the next."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from adapterhub.serve.errors import RequestError

_LONGEST_SECONDS = 1800.0
# To start it takes ten times as long as a small merge.
_IDLE_SECONDS = 120.0
_LINE_BYTES = 2**20


class Builder:
    """One child process at most. Used from one event loop, for one build at a time."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._end: asyncio.TimerHandle | None = None

    async def ask(self, asked: Mapping[str, Any], *, keep: bool) -> dict[str, str]:
        """The child's answer; it ends afterwards unless `keep`. Raises RequestError 500 where it
        gives none."""
        if self._end is not None:
            self._end.cancel()
        process = await self._running()
        answered = False
        try:
            async with asyncio.timeout(_LONGEST_SECONDS):
                answer: dict[str, str] = json.loads(await _exchange(process, asked))
            answered = True
        except (TimeoutError, ValueError, OSError):
            what = "the version could not be made, the server's log says why"
            raise RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, what) from None
        finally:
            if answered and keep:
                loop = asyncio.get_running_loop()
                self._end = loop.call_later(_IDLE_SECONDS, _stop, process)
            else:
                _stop(process)
        return answer

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            # The server's own GPUs, threads and libraries are not the child's.
            environment = {
                **{name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
                "CUDA_VISIBLE_DEVICES": "",
                "OMP_NUM_THREADS": "1",
            }
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "adapterhub.derived.child",
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                env=environment, limit=_LINE_BYTES,
            )  # fmt: skip
        return self._process


async def _exchange(process: asyncio.subprocess.Process, asked: Mapping[str, Any]) -> bytes:
    """One line there, one line back; empty where the process ended."""
    if process.stdin is None or process.stdout is None:
        raise AssertionError("both are pipes")
    process.stdin.write(json.dumps(asked).encode() + b"\n")
    await process.stdin.drain()
    return await process.stdout.readline()


def _stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
