"""The site is built without a warning: every link, anchor, and page of the navigation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the whole site; a warning of mkdocs fails every test of it."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there_and_in_the_navigation(site):
    pages = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]
    menu = (site / "index.html").read_text(encoding="utf-8")
    for page in pages:
        html = page.with_suffix(".html").as_posix()
        assert (site / html).is_file()
        assert f'href="{html}"' in menu or html == "index.html", f"{html} is not in the menu"


def test_protocols_stand_in_the_reference_with_their_methods(site):
    text = (site / "reference" / "protocols.html").read_text(encoding="utf-8")
    for name in ("Method.attach", "MergeRule.__call__", "Remote.publish", "Registry.commit"):
        assert f'id="adapterhub.protocols.{name}"' in text, name


def test_what_lies_outside_of_docs_is_on_the_site(site):
    text = (site / "source" / "examples" / "demo.py.html").read_text(encoding="utf-8")
    words = re.sub(r"<[^>]+>", "", text)
    assert "def main()" in words
    assert 'href="source/examples/demo.py.html"' in (site / "index.html").read_text()


def test_nothing_is_loaded_from_elsewhere(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    assert "fonts.googleapis" not in text
    assert 'src="http' not in text
