"""The documentation agrees with the code: generated pages, commands, links, examples."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
import torch

from adapterhub.cli import adz

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "examples").rglob("*.md"),
]
PAGES = [page for page in PAGES if not page.is_relative_to(ROOT / "docs" / "reference")]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def blocks(page, *languages):
    text = page.read_text(encoding="utf-8")
    return [
        code for language, code in re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL)
        if language in languages
    ]  # fmt: skip


def adz_commands(page):
    """Each `adz ...` of the page: in shell and console blocks, and in `code` of the text."""
    text = page.read_text(encoding="utf-8")
    lines = [line.removeprefix("$ ") for code in blocks(page, "sh") for line in code.splitlines()]
    lines += [
        line.removeprefix("$ ") for code in blocks(page, "console")
        for line in code.splitlines() if line.startswith("$ ")
    ]  # fmt: skip
    lines += re.findall(r"`(adz [^`]*)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [list(takewhile(belongs, split(line))) for line in lines if line.startswith("adz ")]


def split(line):
    """A line of shell as words, with `;`, `|` and `&` as words of their own."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&")
    lexer.whitespace_split = True
    return list(lexer)


def belongs(word):
    """Whether it is still the command's own: behind `--` stands what an engine is told."""
    return word != "--" and not set(word) <= set(";|&")


def test_generated_pages_are_up_to_date():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "build_docs.py", "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_on_the_page_exists_with_its_options(page, home):
    # Names that stand for something, and flags that only an example plugin adds.
    placeholders = {"NAME", "--NAME", "--yours", "--largest", "--median", "--star", "census"}
    root = adz.make_context("adz", [], resilient_parsing=True)
    for words in adz_commands(page):
        command, context, rest = adz, root, words[1:]
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            name = rest.pop(0)
            if name in placeholders:
                break
            command = command.get_command(context, name)
            assert command is not None, words
            context = click.Context(command, parent=context, info_name=name)
        known = {o for p in command.get_params(context) for o in (*p.opts, *p.secondary_opts)}
        given = {word.partition("=")[0] for word in rest if word.startswith("-")}
        assert given <= known | placeholders, words


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_to_a_file_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_examples_compile(page):
    for code in blocks(page, "python"):
        compile(code, str(page), "exec")


def test_rule_of_the_plugin_page_takes_the_largest():
    scope = {}
    (code,) = [c for c in blocks(ROOT / "docs" / "plugins.md", "python") if "def largest" in c]
    exec(code, scope)
    deltas = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    merged = scope["largest"](deltas, torch.full((3,), 1 / 3), None, {})
    for row in range(4):
        for column in range(5):
            wanted = max(deltas[:, row, column].tolist(), key=abs)
            assert merged[row, column].item() == pytest.approx(wanted, rel=1e-6)


def test_descriptor_of_the_plugin_page_is_valid():
    from adapterhub import specs

    scope = {}
    (code,) = [c for c in blocks(ROOT / "docs" / "plugins.md", "python") if "hookimpl" in c]
    exec(code, scope)
    (rule,) = scope["adapterhub_merge_rules"]()
    assert isinstance(rule, specs.MergeRule)
    assert rule.name == "largest"


def test_tiny_base_has_the_size_that_the_plugin_page_says(tiny_base_dir):
    from safetensors import safe_open

    with safe_open(tiny_base_dir / "model.safetensors", "pt") as file:
        count = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert f"{count:,} parameters" in (ROOT / "docs" / "plugins.md").read_text()


def test_picture_is_well_formed_and_has_a_title():
    root = ElementTree.parse(ROOT / "docs" / "path.svg").getroot()
    assert root.findtext("{http://www.w3.org/2000/svg}title")
