"""The pages for plugin authors: every command runs, every example is one that is tested."""

from __future__ import annotations

import re

import pytest
from author_pages import fill
from run_page import run_page

from adapterhub.scaffold import KINDS

from .page_output import ROOT, without_digests

AUTHORS = ROOT / "docs" / "authors"
EXAMPLE = ROOT / "examples" / "adz-plugin-template"
PAGES = sorted(AUTHORS.glob("*.md"))
RUN = [page for page in PAGES if "```console" in page.read_text(encoding="utf-8")]


def stable(text):
    """Without what differs between runs and machines: milliseconds, the width of their column, and
    digests of computed weights."""
    text = re.sub(r"(loaded +)[\d.]+", r"\1N", text)
    return without_digests(re.sub(r" +", " ", text))


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_the_page_shows_what_its_commands_print(page):
    assert stable(run_page(page)) == stable(page.read_text(encoding="utf-8"))


def test_no_block_of_shell_is_left_out():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r"^```(\w*)$", text, re.MULTILINE)) <= {
            "", "console", "python", "toml",
        }  # fmt: skip
        for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
            assert block.startswith("$ "), f"{page.name}: a block begins with no command"


def test_each_kind_has_a_page_with_its_protocol_checks_and_example():
    for name, kind in KINDS.items():
        text = (AUTHORS / f"{name}.md").read_text(encoding="utf-8")
        word = "".join(part.capitalize() for part in name.split("-"))
        assert f"include: adapterhub/specs.py::{word} -->" in text
        assert f"::{word} -->" in text.partition("## Protocol")[2] or name == "command"
        assert f"conformance: {word}Conformance -->" in text
        # The example is a file of the template, whose own tests tests/packaging runs.
        (module,) = re.findall(
            r"The implementation:\n\n<!-- include: (\S+) -->\n```python\n(.*?)\n```\n",
            text,
            re.DOTALL,
        )
        source = (ROOT / module[0]).read_text(encoding="utf-8")
        assert source.rstrip() == module[1]
        assert sum(1 for line in source.splitlines() if line.strip()) <= 60
        (tested,) = re.findall(r"Its tests:\n\n<!-- include: (\S+) -->", text)
        assert f"{word}Conformance" in (ROOT / tested).read_text(encoding="utf-8")
        assert (ROOT / tested).parent == EXAMPLE / "tests"
        assert kind.folder


def test_a_change_of_the_code_changes_the_page():
    page = "<!-- include: adapterhub/protocols/data.py::Metric -->\nold\n<!-- /include -->"
    written = fill(page, {})
    assert "def __call__(self, answer: str, reference: str) -> float:" in written
    path = ROOT / "adapterhub" / "protocols" / "data.py"
    changed = path.read_text(encoding="utf-8").replace("answer: str,", "answer: bytes,")
    assert "answer: bytes," in fill(written, {path: changed})


def test_what_is_not_in_the_code_is_an_error():
    with pytest.raises(SystemExit, match="no class and no function Nothing"):
        fill("<!-- include: adapterhub/specs.py::Nothing -->\n<!-- /include -->", {})
