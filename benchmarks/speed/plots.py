"""docs/merge-speed.svg: how time and memory grow with the number of adapters and their rank."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

Points = Mapping[int, Mapping[str, float]]


def draw(path: Path, growth: Mapping[str, Mapping[str, Points]]) -> None:
    """growth: "adapters" or "rank", then the merge's label, then its points by number."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", "0")
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "adapterhub"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), sharex="col")
    titles = {"adapters": "adapters of rank 16", "rank": "rank of two adapters"}
    for column, (kind, series) in enumerate(growth.items()):
        for label, points in series.items():
            numbers: Sequence[int] = sorted(points)
            cpu = [points[number]["cpu_seconds"] for number in numbers]
            memory = [points[number]["peak_mb"] for number in numbers]
            axes[0, column].plot(numbers, cpu, marker="o", label=label)
            axes[1, column].plot(numbers, memory, marker="o", label=label)
        axes[0, column].set(xscale="log", yscale="log")
        axes[1, column].set(xscale="log", xlabel=titles[kind], ylim=(0, None))
        axes[1, column].set_xticks(numbers, [str(number) for number in numbers], minor=False)
        axes[1, column].minorticks_off()
    axes[0, 0].set_ylabel("CPU-seconds")
    axes[1, 0].set_ylabel("peak MB of the process")
    axes[0, 0].legend()
    figure.suptitle("One layer's attention of Llama-3.1-8B: four modules, one worker")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
