"""A hook of mkdocs: what pages link to outside of docs/ is a page of the site too.

A page says `../examples/demo.py`, which a reader of the tree opens; the site gets a page with that
file, or with the list of a folder's files, below source/.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
_LINK = re.compile(r"\]\((\.\./[^)#\s]+)(#[^)\s]*)?\)")
_LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".yaml": "yaml", ".md": "markdown"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file that is linked to."""
    wanted = {target for file in files.documentation_pages() for target in _outside(file)}
    wanted |= {part for path in wanted if path.is_dir() for part in _parts(path)}
    for path in sorted(wanted):
        text = _listing(path) if path.is_dir() else _listed(path)
        files.append(File.generated(config, _page_of(path), content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links to these pages."""
    folder = posixpath.dirname(page.file.src_uri)

    def lead(match: re.Match[str]) -> str:
        path = _resolve(page.file.src_uri, match[1])
        if path is None:
            return match[0]
        return f"]({posixpath.relpath(_page_of(path), folder)})"

    return _LINK.sub(lead, markdown)


def _outside(file: File) -> Iterator[Path]:
    for target, _ in _LINK.findall(file.content_string):
        path = _resolve(file.src_uri, target)
        if path is not None and path.exists():
            yield path


def _resolve(page: str, target: str) -> Path | None:
    """The path in the tree, of what lies outside of docs/."""
    path = (ROOT / "docs" / page).parent.joinpath(target).resolve()
    inside = path.is_relative_to(ROOT / "docs") or not path.is_relative_to(ROOT)
    return None if inside else path


def _page_of(path: Path) -> str:
    return f"source/{path.relative_to(ROOT).as_posix()}{'/index' if path.is_dir() else ''}.md"


def _parts(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.suffix in _LANGUAGES and path.is_file())
    return sorted(path for path in found if "__pycache__" not in path.parts)


def _listing(folder: Path) -> str:
    names = [path.relative_to(folder).as_posix() for path in _parts(folder)]
    return "\n".join([f"# {folder.relative_to(ROOT)}/\n", *(f"- [{n}]({n}.md)" for n in names), ""])


def _listed(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    # More backticks than any fence within.
    return f"# {path.relative_to(ROOT)}\n\n`````{_LANGUAGES.get(path.suffix, '')}\n{text}`````\n"
