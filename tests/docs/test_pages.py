"""The documentation agrees with the code: generated pages, commands, links, examples."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from itertools import takewhile
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import build_docs
import click
import pytest
from pymdownx.slugs import slugify

from adapterhub.cli import adz

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / "docs").rglob("*.md"),
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


def test_generated_pages_are_up_to_date(home, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["build_docs.py", "--check"])
    assert build_docs.main() == 0, capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_on_the_page_exists_with_its_options(page, home):
    # Names that stand for something, and flags that only an example plugin adds.
    placeholders = {"NAME", "--NAME", "--yours", "--median", "--star", "census"}
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


def anchors(page):
    """The anchors of a page's headings, as GitHub makes them and as the site does."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {slugify(case="lower")(title.replace("`", ""), "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_to_a_file_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", text):
        if target.startswith(("http://", "https://")):
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        # What mkdocstrings makes has anchors on the site only, where its build checks them.
        if anchor and not anchor.startswith("adapterhub."):
            assert anchor in anchors(file), f"{target}#{anchor}"


def test_addresses_elsewhere_are_secure():
    """Of links, of code and of plain text. Whether somebody answers there is not asked: the tests
    have no network."""
    found = set()
    for page in {*PAGES, *(ROOT / "docs").rglob("*.md")}:
        found |= set(re.findall(r"https?://[^\s)>\"'`|]+", page.read_text(encoding="utf-8")))
    hosts = {url: urlsplit(url).hostname or "" for url in found}
    public = {
        url for url, host in hosts.items()
        if "." in host and not host.startswith("127.") and not host.endswith(".example")
    }  # fmt: skip
    assert "https://github.com/adapter-hub/adapters" in public
    assert {url for url in public if not url.startswith("https://")} == set()


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_examples_compile(page):
    for code in blocks(page, "python"):
        compile(code, str(page), "exec")


def test_tiny_base_has_the_size_that_the_plugin_page_says(tiny_base_dir):
    from safetensors import safe_open

    with safe_open(tiny_base_dir / "model.safetensors", "pt") as file:
        count = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118
    assert f"{count:,} parameters" in (ROOT / "docs" / "authors" / "testing.md").read_text()


@pytest.mark.model
def test_what_your_data_shows_without_training_is_what_adz_prints(real_base_home, programs):
    """The commands that read data and the base's configuration only, with all of their output."""
    page = (ROOT / "docs" / "your-data.md").read_text(encoding="utf-8")
    shown = "".join(re.findall(r"```console\n(.*?)```", page, re.DOTALL))
    found = re.findall(
        r"^\$ adz (data check .*|train .* --dry-run)\n((?:(?!\$ ).*\n)+)", shown, re.M
    )
    assert len(found) == 2
    for command, output in found:
        done = subprocess.run(
            [programs / "adz", *shlex.split(command)],
            env={**os.environ, "ADZ_HOME": str(real_base_home)},
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True,
        )  # fmt: skip
        # How this machine trains it: threads, and what its instructions suggest.
        assert [re.sub(r"^profile .*", "profile", line) for line in done.stdout.splitlines()] == [
            re.sub(r"^profile .*", "profile", line) for line in output.splitlines()
        ]


def test_picture_is_well_formed_and_has_a_title():
    root = ElementTree.parse(ROOT / "docs" / "path.svg").getroot()
    assert root.findtext("{http://www.w3.org/2000/svg}title")
