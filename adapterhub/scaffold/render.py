"""A distribution from the templates: texts in which `{{word}}` stands for a name."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from adapterhub.errors import unknown_name, usage_error
from adapterhub.scaffold.kinds import KINDS, Kind

_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
_WORD = re.compile(r"\{\{(\w+)\}\}")
# Templates of a project, and where they go.
_PROJECT = {
    "pyproject.toml.txt": "pyproject.toml",
    "README.md.txt": "README.md",
    "ci.yml.txt": ".github/workflows/ci.yml",
    "gitignore.txt": ".gitignore",
    "init.py.txt": "src/{{package}}/__init__.py",
}
_MODULES = {
    "module.py.txt": "src/{{package}}/{{module}}.py",
    "options.py.txt": "src/{{package}}/{{module}}_options.py",
    "test.py.txt": "tests/test_{{module}}.py",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A component of the new plugin: its kind, and what a user will type."""

    kind: Kind
    name: str

    @property
    def module(self) -> str:
        """Its Python module."""
        return self.name.replace("-", "_")


def parse_part(text: str, distribution: str) -> Part:
    """`KIND` or `KIND=NAME`; without a name that of the distribution, `adz-` left away."""
    check(distribution, "distribution")
    kind, _, name = text.partition("=")
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    return Part(KINDS[kind], check(name or distribution.removeprefix("adz-"), "component"))


def check(name: str, word: str) -> str:
    """The name, where it can be that of a distribution, a module and a component."""
    if not _NAME.fullmatch(name) or len(name) > 64 or keyword.iskeyword(name.replace("-", "_")):
        raise usage_error(
            f"{name!r} cannot be the name of a {word}",
            "use lower-case letters, digits, '-' and '_', and a letter first",
        )
    return name


def render(distribution: str, parts: Sequence[Part]) -> dict[str, str]:
    """The files of a distribution with these parts: relative path -> text."""
    package = check(distribution, "distribution").replace("-", "_")
    _check_parts(parts)
    words = {
        "distribution": distribution,
        "package": package,
        "first": parts[0].name,
        "description": _description(parts),
        "rows": "\n".join(_row(part) for part in parts),
        "extras": ",".join(["testing", *sorted({e for p in parts for e in p.kind.extras})]),
    }
    found = {_fill(target, words): _template("project", name, words)
             for name, target in _PROJECT.items()}  # fmt: skip
    hooks = [_template("project", "plugin.py.txt", words)]
    for part in parts:
        known = {**words, "name": part.name, "module": part.module, "Class": _class(part.name)}
        hooks.append(_template(part.kind.folder, "hook.py.txt", known))
        for name, target in _MODULES.items():
            if (files(__package__) / "templates" / part.kind.folder / name).is_file():
                found[_fill(target, known)] = _template(part.kind.folder, name, known)
    found[f"src/{package}/plugin.py"] = "\n\n".join(hooks)
    return {path: found[path] for path in sorted(found)}


def _check_parts(parts: Sequence[Part]) -> None:
    modules = [part.module for part in parts]
    for module in modules:
        if modules.count(module) > 1:
            raise usage_error(
                f"two parts would be the module {module}", "name them: --kind metric=length"
            )
        if module == "plugin":
            raise usage_error("a part cannot be called plugin", "that module holds the hooks")


def _template(folder: str, name: str, words: Mapping[str, str]) -> str:
    source = files(__package__) / "templates" / folder / name
    return _fill(source.read_text(encoding="utf-8"), words)


def _fill(text: str, words: Mapping[str, str]) -> str:
    return _WORD.sub(lambda match: words[match[1]], text)


def _class(name: str) -> str:
    return "".join(part.capitalize() for part in re.split("[-_]", name))


def _description(parts: Sequence[Part]) -> str:
    if len(parts) > 3:
        return f"{len(parts)} components for adapterhub."
    words = [f"{'an' if p.kind.word[0] in 'aeiou' else 'a'} {p.kind.word}" for p in parts]
    listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
    return f"{listed[0].upper()}{listed[1:]} for adapterhub."


def _row(part: Part) -> str:
    usage = part.kind.usage.format(name=part.name)
    return f"| {part.kind.word} | `{part.name}` | `{part.module}.py` | `{usage}` |"
