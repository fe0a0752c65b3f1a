"""Every line of shell in the documentation: which are there, and which of them no test runs."""

from __future__ import annotations

import re
from pathlib import Path

from .page_output import ROOT, SERVED

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if not page.is_relative_to(ROOT / "docs" / "reference")]
YOUR_DATA = ROOT / "docs" / "your-data.md"
TRAINING = ROOT / "docs" / "training.md"
# Names of the reader's own stand in their lines: test_readers_lines.py gives him what they name.
READERS = [
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in ("convert", "deploying", "export", "registry", "serving-live", "signing")
    ),
]
PROGRAMS = ("$ ", "adz ", "make ", "pip ", "python ", "curl ", "openssl ", "kubectl ", ".venv/bin/")

# Why, for which pages, and how their lines begin. That commands and options exist is tested of
# all of them, in test_pages.py.
NOT_RUN = {
    "sets up or tests the project itself: what runs this test did it": {
        "README.md": ["make demo", "make test", "pip install"],
        "CONTRIBUTING.md": ["make setup", "make test", "make lint", "make docs"],
        "docs/deploying.md": ["pip install"],
    },
    "needs a cluster; what it is given is checked in tests/deploy": {
        "docs/deploying.md": ["kubectl create secret", "kubectl apply"],
    },
    "starts Ray, or vLLM: tests/serve/ray and tests/serve/test_vllm_tools.py do": {
        "docs/deploying.md": ["adz serve smollm2 --ray"],
        "docs/clients.md": ["adz serve BASE -- --enable-auto-tool-choice"],
    },
    "trains and measures for hours; what it wrote stands beside the page": {
        "docs/merge-quality.md": ["python benchmarks/merge_quality.py"],
    },
}


def shell_blocks(text: str) -> list[str]:
    """Fenced and indented blocks that are shell: by their language, or by how they begin."""
    fence = re.compile(r"^ *```(\w*)\n(.*?)^ *```\n", re.MULTILINE | re.DOTALL)
    found = fence.findall(text)
    found += [
        ("", re.sub(r"^ {4}", "", block, flags=re.MULTILINE))
        for block in re.findall(r"(?<=\n\n)(?: {4}\S.*\n)+", fence.sub("", text))
    ]
    return [
        block for language, block in found
        if language in ("sh", "bash", "console")
        or (language in ("", "text") and block.startswith(PROGRAMS))
    ]  # fmt: skip


def shell_lines(block: str) -> list[str]:
    """The block's commands: behind `$`, or each line, with what it goes on with."""
    if block.startswith("$ "):
        return re.findall(r"^\$ (.*)$", block, re.MULTILINE)
    lines = re.sub(r"\\\n *", "", block).splitlines()
    return [line for line in lines if line.strip()]


def is_shown(page: Path, block: str) -> bool:
    """Whether it is one of a page of which every `$` line is run, and its output compared: by
    test_shell_blocks.py, test_authors.py, test_training.py or test_served_pages.py."""
    whole = page in (YOUR_DATA, TRAINING, *SERVED) or page.parent == ROOT / "docs" / "authors"
    return whole and block.startswith("$ ")


def other_lines(page: Path) -> list[str]:
    """The lines of all other blocks."""
    blocks = shell_blocks(page.read_text(encoding="utf-8"))
    return [line for block in blocks if not is_shown(page, block) for line in shell_lines(block)]


def not_run(page: Path, line: str) -> set[tuple[str, str]]:
    """The entries of NOT_RUN that it belongs to, each as the page's name and a beginning."""
    name = page.relative_to(ROOT).as_posix()
    return {
        (name, beginning)
        for pages in NOT_RUN.values() for beginning in pages.get(name, [])
        if line.startswith(beginning)
    }  # fmt: skip
