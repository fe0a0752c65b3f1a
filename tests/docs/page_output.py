"""What pages show of commands, and what of it is the same in every run and on every machine."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Their commands are run in the project's root, with servers on ports of the page's own.
SERVED = [
    ROOT / "docs" / f"{name}.md"
    for name in ("registry", "clients", "serving", "serving-derived", "serving-doors")
]


def console_steps(text: str) -> list[tuple[str, str]]:
    """Each `$` line of a page's console blocks, and what stands below it."""
    shown = "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL))
    return re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", shown, re.MULTILINE)


def without_digests(text: str) -> str:
    """Without digests of computed weights: their last bits are the machine's."""
    return re.sub(r"sha256:[0-9a-f]{64}", "sha256:N", text)


def squeezed(text: str) -> list[str]:
    """The lines with anything on them, whose columns are as wide as they like."""
    lines = re.sub(r" +", " ", text).splitlines()
    return [line.strip() for line in lines if line.strip()]


def outline(text: str) -> list[str]:
    """What stays the same on another base: without numbers, digests, names of users and tokens,
    and without lines about the machine or the base's file, and bars of libraries, which `adz` hides
    in a process of its own."""
    text = without_digests(text)
    text = re.sub(r"^(YYYY-MM-DD hh:mm:ss|[\d-]{10} [\d:]{8}) +\S+", "TIME WHO", text, flags=re.M)
    text = re.sub(r"^(source|path|architecture|dtype|created|profile) .*", r"\1", text, flags=re.M)
    text = re.sub(r"^(dequantising|derived) .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"</?\|?\w+\|?>|\b[kM]B\b", "SOME", text)
    text = re.sub(r"\d[\d,.]*(e-?\d+)?", "N", text)
    return [line for line in squeezed(text.replace("-", " ")) if "it/s" not in line]
