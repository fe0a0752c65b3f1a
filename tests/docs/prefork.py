"""Runs `adz` and Python in processes that begin with torch, transformers and PEFT imported.

A page has dozens of lines that start `adz` anew, of which each spends seconds on the same imports.
Here one process imports them once and is forked for each line: what the line runs has its own
memory, environment, folder, standard streams, signals and exit code. As a script
(`prefork.py SOCKET`) this file is that process.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FORK = multiprocessing.get_context("fork")
# What takes the place of `adz` and `python`: it hands over what it was given, and ends as the
# process ends that was forked for it. Python that needs none of the imports stays itself.
PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys
HANDLED = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
words = sys.argv[1:]
if {program!r} == "python" and not any("adapterhub" in word for word in words[:2]):
    os.execv({python!r}, [{python!r}, *words])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    told = [{program!r}, words, dict(os.environ), os.getcwd()]
    socket.send_fds(server, [b" "], [0, 1, 2])
    server.sendall(json.dumps(told).encode() + b"\\n")
    answers = server.makefile()
    process = int(answers.readline())
    for number in HANDLED:
        signal.signal(number, lambda number, frame: os.kill(process, number))
    code = int(answers.readline())
if code < 0:
    for number in HANDLED:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def preforked(folder: Path) -> Iterator[Path]:
    """The folder with the programs, to stand first in PATH, for as long as the block runs."""
    address = folder / "socket"
    for program in ("adz", "python"):
        text = PROGRAM.format(python=sys.executable, program=program, address=str(address))
        (folder / program).write_text(text)
        (folder / program).chmod(0o755)
    ready, writable = os.pipe()
    process = subprocess.Popen(
        [sys.executable, __file__, address, str(writable)], pass_fds=[writable],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writable)
    try:
        with os.fdopen(ready, "rb") as waited:
            assert waited.read() == b"ready", "what is imported before failed"
        yield folder
    finally:
        process.terminate()
        process.wait()


def main(address: str, ready: int) -> None:
    """Import, then run each request in a fork until this process is ended."""
    from adapterhub.cli import main as adz

    # It sets what libraries read from the environment as they are imported.
    adz(["--version"])
    for module in (
        "peft", "trl", "transformers.models.llama.modeling_llama", "adapterhub.testing.tiny",
        "adapterhub.train.pipeline", "adapterhub_transformers.engine",
    ):  # fmt: skip
        importlib.import_module(module)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        os.write(ready, b"ready")
        os.close(ready)
        while True:
            asked, _ = listener.accept()
            FORK.Process(target=serve, args=(asked,)).start()
            asked.close()


def serve(asked: socket.socket) -> None:
    """Run what was asked in a fork of its own, and tell how that ended."""
    _, streams, _, _ = socket.recv_fds(asked, 1, 3)
    told = json.loads(asked.makefile().readline())
    process = FORK.Process(target=run, args=(streams, *told))
    process.start()
    for stream in streams:
        os.close(stream)
    asked.sendall(b"%d\n" % process.pid)
    process.join()
    asked.sendall(b"%d\n" % process.exitcode)


def run(
    streams: list[int], program: str, words: list[str], environment: dict[str, str], folder: str
) -> None:
    """As the interpreter does it: `adz ...`, `python -m MODULE ...` or `python -c CODE ...`."""
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
        os.close(stream)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[0] = ""
    if program == "adz":
        from adapterhub.start import main as adz

        sys.argv = ["adz", *words]
        sys.exit(adz())
    kind, what, *rest = words
    sys.argv = [kind, *rest]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        assert kind == "-c"
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
