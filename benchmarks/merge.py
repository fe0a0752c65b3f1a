"""What a merge costs, with the peers in the same run: CPU and wall seconds, memory, error.

    python benchmarks/merge.py          # everything, and docs/merge-speed.svg: minutes
    python benchmarks/merge.py --short  # SmolLM2's shapes beside PEFT's svd only: a minute

Random adapters have the shapes of SmolLM2-135M and of Llama-3.1-8B. Each side runs in a process of
its own, with one thread and one worker where nothing else is said. CPU-seconds are those of the
merge, from opening the adapters to the written result; the start of Python and the imports are
not counted, but for the whole command beside them. Peak memory is the process's, imports
included. Errors are measured here, in float64, from what each side wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from speed.adapters import ATTENTION, LLAMA, SMOLLM, write_adapter  # noqa: E402

WEIGHTS = (0.7, 0.3)
RANK = 16
LLAMA_LAYERS = 32
# Layers of Llama's shapes on which a merge is timed that is too long for all of them.
SAMPLE_LAYERS = 2
ADAPTER_COUNTS = (2, 4, 8, 16, 32)
RANKS = (8, 16, 32, 64, 128)
Figures = dict[str, Any]


def main() -> None:
    """Measure and print; the plot too, if not --short."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="SmolLM2's shapes only.")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "merge-speed.svg")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="adz-benchmark-") as folder:
        directory = Path(folder)
        print_smollm(smollm(directory, with_cat=not given.short))
        if not given.short:
            llama(directory)
            two_workers(directory)
            growth(directory, given.plot)


def smollm(directory: Path, *, with_cat: bool = True) -> Figures:
    """Figures by side, and PEFT's svd as multiples of ours:
    `{"sides": {side: {cpu_seconds, peak_mb, relative_error}}, "ratios": {...}}`."""
    sources = [
        write_adapter(directory / f"smollm-r{rank}", SMOLLM, 30, rank, seed=rank)
        for rank in (8, 16)
    ]
    names = [str(source) for source in sources]
    merge = {"adapters": names, "rule": "linear", "weights": WEIGHTS, "rank": RANK, "workers": 1}
    out = directory / "smollm-merged"
    (ours,) = run_ours(directory, [{**merge, "out": str(out)}])
    sides = {"adapterhub": {**ours, "relative_error": relative_error(sources, out)}}
    for kind in ("svd", "cat") if with_cat else ("svd",):
        out = directory / f"peft-{kind}" / "merged"
        peer = {"side": "peft", "base": "smollm", "type": kind, "adapters": names}
        figures = run_peer(directory, {**peer, "weights": WEIGHTS, "rank": RANK, "out": str(out)})
        sides[f"peft {kind}"] = {**figures, "relative_error": relative_error(sources, out)}
    theirs = sides["peft svd"]
    ratios = {
        "cpu": theirs["cpu_seconds"] / ours["cpu_seconds"],
        "memory": theirs["peak_mb"] / ours["peak_mb"],
        "error_difference": theirs["relative_error"] - sides["adapterhub"]["relative_error"],
    }
    return {"sides": sides, "ratios": ratios, "command": whole_command(directory, names)}


def print_smollm(found: Figures) -> None:
    """A table and the ratios."""
    print("SmolLM2-135M, 210 modules, r=8 and r=16, weights 0.7 and 0.3, to rank 16")
    print(f"  {'':22}{'cpu s':>8}{'peak MB':>9}{'start MB':>9}{'relative error':>16}")
    for side, one in found["sides"].items():
        print(
            f"  {side:22}{one['cpu_seconds']:8.2f}{one['peak_mb']:9.0f}{one['baseline_mb']:9.0f}"
            f"{one['relative_error']:16.6f}"
        )
    ratios, command = found["ratios"], found["command"]
    print(
        f"  peft svd / adapterhub: {ratios['cpu']:.0f}x the CPU time, {ratios['memory']:.1f}x the"
        f" memory, errors differ by {abs(ratios['error_difference']):.1e}"
    )
    print(
        "  the whole command adz merge, start and imports included:"
        f" {command['wall_seconds']:.1f} s wall, {command['cpu_seconds']:.1f} CPU-seconds\n"
    )


def llama(directory: Path) -> None:
    """Llama-3.1-8B's shapes: ours in full, the peers and the longest of ours on a sample."""
    full = llama_adapters(directory / "llama", LLAMA_LAYERS, 8)
    sample = llama_adapters(directory / "llama-sample", SAMPLE_LAYERS, 8)
    print(f"Llama-3.1-8B, {7 * LLAMA_LAYERS} modules, bf16, r=16, to rank {RANK}")
    print(f"  {'':34}{'cpu s':>9}{'wall s':>9}{'peak MB':>9}{'start MB':>9}{'error':>8}")
    merge = {"rank": RANK, "workers": 1}
    for label, rule, space, names in (
        ("2 adapters, linear in core", "linear", "core", full[:2]),
        ("8 adapters, linear in core", "linear", "core", full),
        ("2 adapters, ties in core", "ties", "core", full[:2]),
        ("2 adapters, ties in knots", "ties", "knots", full[:2]),
        ("8 adapters, ties in knots", "ties", "knots", full),
        ("2 adapters, ties in dense", "ties", "dense", full[:2]),
        ("8 adapters, ties in dense *", "ties", "dense", sample),
    ):
        options = {**merge, "adapters": names, "rule": rule, "space": space}
        (one,) = run_ours(directory, [options])
        times = LLAMA_LAYERS / SAMPLE_LAYERS if names is sample else 1
        print(
            f"  {label:34}{times * one['cpu_seconds']:9.2f}{times * one['wall_seconds']:9.2f}"
            f"{one['peak_mb']:9.0f}{one['baseline_mb']:9.0f}{one['reported_error']:8.4f}"
        )
    llama_peers(directory)
    command = whole_command(directory, full[:2])
    print(f"  * extrapolated from {SAMPLE_LAYERS} of {LLAMA_LAYERS} layers; memory as measured")
    print(
        f"  the whole command adz merge of 2, start and imports included:"
        f" {command['wall_seconds']:.1f} s wall, {command['cpu_seconds']:.1f} CPU-seconds\n"
    )


def llama_peers(directory: Path) -> None:
    """PEFT's svd and cat on one k_proj, svd_lowrank on one module of each shape."""
    k_proj = {"self_attn.k_proj": LLAMA["self_attn.k_proj"]}
    names = [
        str(write_adapter(directory / f"k-proj-{seed}", k_proj, 1, RANK, seed=seed))
        for seed in (1, 2)
    ]
    m, n = LLAMA["self_attn.k_proj"]
    for kind, growth_of in (("svd", lambda m, n: m * n * min(m, n)), ("cat", lambda m, n: m + n)):
        out = str(directory / f"k-proj-{kind}" / "merged")
        peer = {"side": "peft", "base": "k_proj", "type": kind, "adapters": names, "out": out}
        one = run_peer(directory, {**peer, "weights": WEIGHTS, "rank": RANK})
        modules = sum(growth_of(*shape) for shape in LLAMA.values()) / growth_of(m, n)
        seconds = one["cpu_seconds"] * modules * LLAMA_LAYERS
        print(f"  {f'2 adapters, peft {kind} **':34}{seconds:9.0f}")
    found = run_peer(directory, {"side": "svd_lowrank", "rank": RANK, "count": 2})
    seconds = LLAMA_LAYERS * sum(found[f"{m} x {n}"] for m, n in LLAMA.values())
    print(f"  {'2 adapters, torch.svd_lowrank ***':34}{seconds:9.0f}{'':9}{found['peak_mb']:9.0f}")
    print(f"  ** extrapolated from one {m} x {n} module: svd by m n min(m, n), cat by m + n")
    print("  *** extrapolated from one module of each shape; the dense sum included")


def two_workers(directory: Path) -> None:
    """How much faster two workers are than one, in wall seconds of the merge."""
    names = llama_adapters(directory / "llama-sample", SAMPLE_LAYERS, 8)
    print(f"Two workers beside one, {SAMPLE_LAYERS} layers of Llama-3.1-8B")
    for label, options in (
        ("8 adapters, linear in core", {"adapters": names, "rule": "linear"}),
        ("2 adapters, ties in dense", {"adapters": names[:2], "rule": "ties", "space": "dense"}),
    ):
        one, two = (
            run_ours(directory, [{**options, "rank": RANK, "workers": workers}])[0]
            for workers in (1, 2)
        )
        print(
            f"  {label:34}{one['wall_seconds']:8.2f} s{two['wall_seconds']:8.2f} s"
            f"  {one['wall_seconds'] / two['wall_seconds']:.2f}x"
            f"  peak {one['peak_mb']:.0f} and {two['peak_mb']:.0f} MB"
        )
    print()


def growth(directory: Path, plot: Path) -> None:
    """Time and memory by the number of adapters and by their rank; printed and drawn."""
    from speed.plots import draw

    def adapters(rank: int, count: int) -> list[str]:
        folder = directory / f"growth-r{rank}"
        return [
            str(write_adapter(folder / str(i), ATTENTION, 1, rank, seed=i, dtype="bfloat16"))
            for i in range(count)
        ]

    cases = {
        "adapters": {count: adapters(16, count) for count in ADAPTER_COUNTS},
        "rank": {rank: adapters(rank, 2) for rank in RANKS},
    }
    found: dict[str, dict[str, dict[int, Figures]]] = {}
    for kind, by_number in cases.items():
        for rule, space in (("linear", "core"), ("ties", "knots"), ("ties", "dense")):
            merge = {"rule": rule, "space": space, "rank": RANK if kind == "adapters" else "max"}
            merges = [{**merge, "workers": 1, "adapters": names} for names in by_number.values()]
            figures = run_ours(directory, merges)
            found.setdefault(kind, {})[f"{rule} in {space}"] = dict(
                zip(by_number, figures, strict=True)
            )
    for kind, series in found.items():
        print(f"Growth with {kind}, four modules: CPU-seconds (peak MB)")
        print("  " + " " * 18 + "".join(f"{number:>16}" for number in cases[kind]))
        for label, points in series.items():
            cells = (f"{p['cpu_seconds']:.2f} ({p['peak_mb']:.0f})" for p in points.values())
            print(f"  {label:18}" + "".join(f"{cell:>16}" for cell in cells))
    draw(plot, found)
    print(f"drawn to {plot}")


def llama_adapters(directory: Path, layers: int, count: int) -> list[str]:
    """Paths of adapters of rank 16 in bf16."""
    return [
        str(write_adapter(directory / str(i), LLAMA, layers, 16, seed=i, dtype="bfloat16"))
        for i in range(count)
    ]


def run_ours(directory: Path, merges: list[dict[str, Any]]) -> list[Figures]:
    """The figures of the merges, in a new process."""
    return _run(directory, "process.py", {"merges": merges})


def run_peer(directory: Path, given: dict[str, Any]) -> Figures:
    """A peer's figures, in a new process."""
    return _run(directory, "peers.py", given)[-1]


def whole_command(directory: Path, names: list[str]) -> Figures:
    """`adz merge` of two as a user runs it, with as many workers as cores."""
    out = directory / f"command-{len(list(directory.iterdir()))}"
    command = [sys.executable, "-m", "adapterhub.cli", "merge", *names, "--rank", str(RANK)]
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [*command, "--out", str(out)], env=_environment(directory), check=True, capture_output=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_seconds": time.perf_counter() - wall, "cpu_seconds": cpu}


def relative_error(sources: list[Path], merged: Path) -> float:
    """Frobenius, of all modules together, against the exact weighted sum, in float64."""
    lost = norm = 0.0
    result = _read(merged)
    exact = [_read(source) for source in sources]
    for index in range(30):
        for name in SMOLLM:
            module = f"model.layers.{index}.{name}"
            delta = sum(w * read(module) for w, read in zip(WEIGHTS, exact, strict=True))
            lost += float((delta - result(module)).square().sum())
            norm += float(delta.square().sum())
    return (lost / norm) ** 0.5


def _run(directory: Path, script: str, given: dict[str, Any]) -> list[Figures]:
    path = ROOT / "benchmarks" / "speed" / script
    done = subprocess.run(
        [sys.executable, str(path), json.dumps(given)],
        env=_environment(directory), check=True, stdout=subprocess.PIPE, text=True, timeout=1800,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _environment(directory: Path) -> dict[str, str]:
    one_thread = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    return {**os.environ, **one_thread, "ADZ_HOME": str(directory / "home"), "HF_HUB_OFFLINE": "1"}


def _read(path: Path) -> Callable[[str], Any]:
    from safetensors.torch import load_file

    config = json.loads((path / "adapter_config.json").read_text())
    tensors = load_file(path / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]

    def delta(module: str) -> Any:
        a, b = (tensors[f"base_model.model.{module}.lora_{f}.weight"].double() for f in "AB")
        return scale * b @ a

    return delta


if __name__ == "__main__":
    main()
