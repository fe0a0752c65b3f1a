#!/usr/bin/env python3
"""What the doors, their figures and their log add to a request, and to each piece of a stream: a
stub app on uvicorn with and without them, in turns.

benchmarks/doors.py --requests 2000 --pieces 500
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
from machine import machine

from adapterhub.protocols import Limits
from adapterhub.serve.doors.keys import new_key

PROMPT = "a word " * 300
ROUNDS = 7


async def stub(scope: Any, receive: Any, send: Any) -> None:
    """Reads the request and answers with a few bytes, after as many pieces as its `max_tokens`
    where it asks for a stream."""
    body = b""
    while (message := await receive())["more_body"]:
        body += message["body"]
    asked = json.loads(body + message["body"] or b"{}")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(asked["max_tokens"] if asked.get("stream") else 0):
        piece = b'data: {"choices": [{"index": 0, "text": " word"}]}\n\n'
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b'{"ok": true}', "more_body": False})


def serve(doors: bool, port: int) -> None:
    """The stub, behind the doors or not, until the process ends."""
    import uvicorn

    from adapterhub.serve.doors.connection import PatientConnection
    from adapterhub.serve.doors.middleware import Doors
    from adapterhub.serve.doors.settings import DoorSettings

    limits = Limits(at_once=64, max_tokens=4096, requests_per_minute=10**9)
    log = str(Path(os.environ["ADZ_HOME"], "requests.log"))
    app: Any = Doors(stub, DoorSettings((), True, limits, requests_log=log)) if doors else stub
    options: dict[str, Any] = {"http": PatientConnection} if doors else {}
    uvicorn.run(app, port=port, log_level="error", lifespan="off", **options)


def measure(ports: dict[str, int], key: str, count: int, pieces: int) -> dict[str, list[float]]:
    """Milliseconds of each request, on one connection to each port, in turns: whatever else the
    machine does costs both the same. With `pieces`, each answer is a stream of so many."""
    asked = {"model": "sql@prod", "prompt": PROMPT, "max_tokens": pieces or 16}
    body = json.dumps({**asked, "stream": bool(pieces)}).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    times: dict[str, list[float]] = {kind: [] for kind in ports}
    with ExitStack() as stack:
        clients = {
            kind: stack.enter_context(
                httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)
            )
            for kind, port in ports.items()
        }
        for _ in range(count):
            for kind, client in clients.items():
                begun = time.perf_counter()
                client.post("/v1/completions", content=body, headers=headers).raise_for_status()
                times[kind].append(1000 * (time.perf_counter() - begun))
    return times


def wait_for(port: int) -> None:
    """Until something answers."""
    for _ in range(200):
        try:
            httpx2.get(f"http://127.0.0.1:{port}/health", trust_env=False)
            return
        except httpx2.TransportError:
            time.sleep(0.05)
    raise SystemExit(f"nothing answers on port {port}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--pieces", type=int, default=500)
    parser.add_argument("--serve", choices=["with", "without"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=18500)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve == "with", options.port)
        return
    with tempfile.TemporaryDirectory() as home:
        os.environ["ADZ_HOME"] = home
        key = [new_key(f"key-{n}", requests_per_minute=10**9)[1] for n in range(options.keys)][-1]
        ports = {"without": options.port, "with": options.port + 1}
        me = [sys.executable, str(Path(__file__))]
        children = [
            subprocess.Popen([*me, "--serve", kind, "--port", str(port)])
            for kind, port in ports.items()
        ]
        try:
            for port in ports.values():
                wait_for(port)
            measure(ports, key, 200, 0)
            rounds = [measure(ports, key, options.requests, 0) for _ in range(ROUNDS)]
            streams = [measure(ports, key, 20, options.pieces) for _ in range(ROUNDS)]
        finally:
            for child in children:
                child.terminate()
                child.wait()
    print(machine())
    print(f"{ROUNDS} x {options.requests} requests of 2 kB, {options.keys} keys in the file")
    for kind in ports:
        medians = sorted(statistics.median(times[kind]) for times in rounds)
        middle, low, high = statistics.median(medians), medians[0], medians[-1]
        print(f"{kind:>8} doors  {middle:.3f} ms  [{low:.3f} to {high:.3f}]")
    added = sorted(_added(times) for times in rounds)
    low, high = added[0], added[-1]
    print(f"the doors add {statistics.median(added):.3f} ms  [{low:.3f} to {high:.3f}]")
    pieces = sorted(1000 * _added(times) / options.pieces for times in streams)
    low, high = pieces[0], pieces[-1]
    print(
        f"and to each of {options.pieces} pieces of a stream {statistics.median(pieces):.1f} us"
        f"  [{low:.1f} to {high:.1f}]"
    )


def _added(times: dict[str, list[float]]) -> float:
    pairs = zip(times["without"], times["with"], strict=True)
    return statistics.median(behind - before for before, behind in pairs)


if __name__ == "__main__":
    main()
