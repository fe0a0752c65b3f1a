"""What the pages in docs/authors take from the code, between two comments:

<!-- include: adapterhub/protocols/train.py::Method -->    a class or function, or a whole file
<!-- conformance: MethodConformance -->                    what the class sets and checks
<!-- kinds -->                                             the kinds of component
<!-- hooks -->                                             the hooks, with their versions

each up to `<!-- /include -->` and so on. scripts/build_docs.py writes them.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from adapterhub import hookspecs, testing
from adapterhub.scaffold import KINDS
from adapterhub.testing.conformance.base import Conformance

ROOT = Path(__file__).resolve().parent.parent
_REGION = re.compile(
    r"(?P<begin><!-- (?P<what>include|conformance|kinds|hooks)(?:: (?P<of>\S+))? -->\n)"
    r".*?(?P<end><!-- /(?P=what) -->)",
    re.DOTALL,
)
_SINCE = re.compile(r"Added in adapterhub (\d+\.\d+) \(hook API (\d+)\)\.")


def fill(page: str, rendered: Mapping[Path, str]) -> str:
    """The page with its regions as the code is now. rendered: files that are about to be written,
    which are read from here."""
    makers: dict[str, Callable[[str], str]] = {
        "include": lambda of: _include(of, rendered),
        "conformance": _conformance,
        "kinds": lambda of: _kinds(),
        "hooks": lambda of: _hooks(),
    }

    def region(match: re.Match[str]) -> str:
        return f"{match['begin']}{makers[match['what']](match['of'] or '')}{match['end']}"

    return _REGION.sub(region, page)


def _include(of: str, rendered: Mapping[Path, str]) -> str:
    name, _, part = of.partition("::")
    path = ROOT / name
    text = rendered.get(path) or path.read_text(encoding="utf-8")
    language = {".py": "python", ".toml": "toml"}[path.suffix]
    return f"```{language}\n{(_part(text, part) if part else text).rstrip()}\n```\n"


def _part(text: str, name: str) -> str:
    """The source of one class or function of a module, with its decorators."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            return "\n".join(text.splitlines()[first - 1 : node.end_lineno])
    raise SystemExit(f"there is no class and no function {name}")


def _conformance(name: str) -> str:
    checked = getattr(testing, name)
    rows = ["| test | what holds |", "|---|---|"]
    for test, function in _tests(checked):
        said = " ".join((inspect.getdoc(function) or "").split()).replace("|", "\\|")
        rows.append(f"| `{test.removeprefix('test_')}` | {said} |")
    said = inspect.getdoc(checked) or ""
    return "\n".join([f"`adapterhub.testing.{name}`. {said}", "", *rows, ""])


def _tests(checked: type[Conformance]) -> Iterator[tuple[str, Callable[..., None]]]:
    """Its own ones, then those of every kind."""
    for holder in (checked, Conformance):
        for name, value in vars(holder).items():
            if name.startswith("test_"):
                yield name, value


def _kinds() -> str:
    rows = ["| `--kind` | page | used by |", "|---|---|---|"]
    for name, kind in KINDS.items():
        usage = kind.usage.format(name="NAME")
        rows.append(f"| `{name}` | [{kind.word}]({name}.md) | `{usage}` |")
    return "\n".join(rows) + "\n"


def _hooks() -> str:
    rows = ["| hook | since adapterhub | hook API | deprecated |", "|---|---|---|---|"]
    for name, function in vars(hookspecs).items():
        if not name.startswith("adapterhub_"):
            continue
        since = _SINCE.search(inspect.getdoc(function) or "")
        if since is None:
            raise SystemExit(f"{name} does not say since when it is there")
        options = getattr(function, f"{hookspecs.PROJECT}_spec")
        told = [options["warn_on_impl"], *(options["warn_on_impl_args"] or {}).values()]
        said = "; ".join(str(warning) for warning in told if warning)
        link = f"[`{name}`](../reference/hooks.md#{name})"
        rows.append(f"| {link} | {since[1]} | {since[2]} | {said or 'no'} |")
    return "\n".join(rows) + "\n"
