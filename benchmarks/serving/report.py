"""Raw figures of a run, the table of their ratios, and throughput over the number of adapters."""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import Any

# What is told, over what: a label, the figure, the one it is divided by, and the least asked for.
ROWS = (
    ("decode, 1 adapter / base, same server", "decode ours 1", "decode ours 0", 0.95),
    ("decode, 2 adapters mixed / base", "decode ours 2", "decode ours 0", 0.90),
    ("decode, 8 adapters mixed / base", "decode ours 8", "decode ours 0", 0.85),
    ("prefill, 1 adapter / base, same server", "prefill ours 1", "prefill ours 0", 0.95),
    ("prefill, 2 adapters mixed / base", "prefill ours 2", "prefill ours 0", 0.92),
    ("prefill, 8 adapters mixed / base", "prefill ours 8", "prefill ours 0", 0.90),
    ("kernels alone: decode, 1 adapter", "decode ours 1", "decode tuned 1", 1.55),
    ("kernels alone: decode, mixed", "decode ours mixed", "decode tuned mixed", 1.5),
    ("kernels alone: prefill, 1 adapter", "prefill ours 1", "prefill tuned 1", 6.0),
    ("kernels alone: prefill, mixed", "prefill ours mixed", "prefill tuned mixed", 5.8),
    ("settings alone: decode, base", "decode tuned 0", "decode stock 0", 1.45),
    ("settings alone: prefill, base", "prefill tuned 0", "prefill stock 0", 1.8),
    ("both: decode, 1 adapter / vLLM as it comes", "decode ours 1", "decode stock 1", 2.3),
    ("both: decode, mixed / vLLM as it comes", "decode ours mixed", "decode stock mixed", 2.1),
    ("both: prefill, 1 adapter / vLLM as it comes", "prefill ours 1", "prefill stock 1", 11.0),
    ("both: prefill, mixed / vLLM as it comes", "prefill ours mixed", "prefill stock mixed", 10.0),
    ("decode, 1 adapter / folded in and compiled", "decode ours 1", "decode folded 0", 0.85),
    ("decode, base, with / without our plugin", "plugin ours", "plugin tuned", 0.99),
    ("decode, 200 of many versions / 1 adapter", "zipf many", "zipf one", 0.85),
    ("decode, 8 adapters / PEFT one by one", "decode ours 8", "peers peft", None),
    ("decode, 1 adapter / PEFT, batch of 8", "decode ours 1", "peers peft batch", None),
    ("decode, 1 adapter / llama.cpp server", "decode ours 1", "peers llama.cpp", None),
)  # fmt: skip
# Differences, in the unit of the figures: a label, the figure, what is taken off, the most.
DIFFERENCES = (
    ("first token of a cold version, over a warm one, ms", "cold first", "cold again", 60.0),
    ("alias moved to first answer of the new version, ms", "flip", None, 150.0),
    ("start, over plain vLLM, s", "start ours", "start tuned", 1.0),
)


def add(out: Path, machine: str, found: dict[str, Any]) -> None:
    """Put figures of this machine into the file; another machine's are not mixed with them."""
    known = json.loads(out.read_text()) if out.exists() else {"machine": machine, "figures": {}}
    if known["machine"] != machine:
        raise SystemExit(f"{out} holds figures of another machine: {known['machine']}")
    known["figures"] |= found
    out.write_text(json.dumps(known, indent=1))


def show(out: Path, plot: Path) -> None:
    """Print the tables, and draw what is known."""
    known = json.loads(out.read_text())
    figures = {name: value for name, value in known["figures"].items() if isinstance(value, list)}
    print(f"{known['machine']}\n")
    print("| tokens a second | median | least to most |\n|---|---:|---:|")
    for name, values in figures.items():
        if name.split()[0] in ("decode", "prefill", "plugin", "zipf", "peers"):
            middle = statistics.median(values)
            print(f"| {name} | {middle:.1f} | {min(values):.1f} to {max(values):.1f} |")
    print("\n| ratio of medians | found | at least |\n|---|---:|---:|")
    for label, above, below, asked in ROWS:
        if above in figures and below in figures:
            ratio = statistics.median(figures[above]) / statistics.median(figures[below])
            print(f"| {label} | {ratio:.3g} | {asked or ''} |")
    print("\n| difference of medians | found | at most |\n|---|---:|---:|")
    for label, more, less, asked in DIFFERENCES:
        if more in figures and (less is None or less in figures):
            less_value = statistics.median(figures[less]) if less else 0.0
            print(f"| {label} | {statistics.median(figures[more]) - less_value:.3g} | {asked:g} |")
    if all(f"{part} ours {count}" in figures for part in ("decode", "prefill") for count in (0, 8)):
        _draw(plot, figures)


def _draw(path: Path, figures: dict[str, list[float]]) -> None:
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "adapterhub"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6))
    labels = {"ours": "adz serve", "tuned": "vLLM's kernels, our settings", "stock": "vLLM alone"}
    units = {"decode": "tokens written a second", "prefill": "prompt tokens a second"}
    for axis, (part, unit) in zip(axes, units.items(), strict=True):
        for kind, label in labels.items():
            counts = [n for n in (0, 1, 2, 8) if f"{part} {kind} {n}" in figures]
            values = [statistics.median(figures[f"{part} {kind} {n}"]) for n in counts]
            if counts:
                axis.plot(range(len(counts)), values, marker="o", label=label)
        axis.set(ylabel=unit, ylim=(0, None), xlabel="adapters in the batch")
        axis.set_xticks(range(4), ["none", "1", "2", "8"])
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
