"""What holds for a component of any kind: its descriptor, its imports, its options."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest

from adapterhub import specs
from adapterhub.errors import AdzError
from adapterhub.testing.fixtures import Result

_HEAVY = ("torch", "transformers", "peft", "trl", "vllm", "datasets", "accelerate", "numpy")
# What a listing needs nothing of; options are models of pydantic.
_HEAVY_FOR_HOOKS = (*_HEAVY, "pydantic", "rich")
_IMPORTS = """
import sys
from importlib import import_module
import_module(sys.argv[1])
hooks = set(sys.modules)
if sys.argv[2]:
    import_module(sys.argv[2])
print(" ".join(sorted(hooks & set(sys.argv[3].split()))))
print(" ".join(sorted(set(sys.modules) & set(sys.argv[4].split()))))
"""


class Conformance:
    """A class of tests about the component `name`, of a kind that the subclass fixes.

    options: its options as they would stand in a recipe, where not all have a default.
    """

    name: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    kind: ClassVar[type[specs.Component]]
    section: ClassVar[str] = ""
    """Where its options stand in a recipe, such as `method`."""

    @pytest.fixture(autouse=True)
    def at_home(self, home: Path) -> None:
        """Each test has a home of its own."""

    @property
    def component(self) -> Any:
        """The descriptor."""
        from adapterhub.plugins import load_plugins

        return load_plugins().get(self.kind, self.name)

    @property
    def implementation(self) -> Any:
        """What the descriptor's `impl` names."""
        from adapterhub.plugins import load_plugins

        return load_plugins().load_implementation(self.component)

    def made_options(self, options: Mapping[str, Any] | None = None) -> Any:
        """These or its own options, with their defaults filled in; an empty model where there are
        none."""
        from adapterhub.config import validate
        from adapterhub.plugins import load_plugins
        from adapterhub.train.plan import NoOptions

        model = load_plugins().load_options(self.component) or NoOptions
        return validate(model, self.options if options is None else options, self.section)

    def test_descriptor_is_valid(self) -> None:
        """It is found, says what it is in one line, and what to install where it needs more."""
        component = self.component
        summary = component.summary
        assert summary.strip(), "the summary is empty: it is what listings show"
        assert "\n" not in summary, f"the summary has several lines: {summary!r}"
        assert not summary.endswith("."), f"the summary ends with a full stop: {summary!r}"
        assert not component.requires or component.install_hint, (
            f"{self.name} requires {', '.join(component.requires)} and has no install_hint: "
            "who lacks it is not told what to install"
        )

    def test_descriptor_imports_nothing_heavy(self) -> None:
        """Hooks are called by many commands, options are read by `--dry-run`."""
        from adapterhub.plugins import load_plugins

        (plugin,) = (
            p.plugin for p in load_plugins().provided(self.kind) if p.component is self.component
        )
        options = (self.component.config or "").partition(":")[0]
        by_hooks, by_options = _heavy_imports(plugin.module, options, tuple(sys.path))
        assert not by_hooks, f"{plugin.module} imports {by_hooks}: name them in impl and requires"
        assert not by_options, f"{options} imports {by_options}: keep options in a module apart"

    def test_implementation_loads(self) -> None:
        """`impl` and `config` lead somewhere."""
        from adapterhub.plugins import load_plugins

        assert load_plugins().load_implementation(self.component) is not None
        load_plugins().load_options(self.component)

    def test_options_are_the_same_everywhere(self) -> None:
        """Each has one name and one value in YAML and as `-o`."""
        import yaml

        from adapterhub.config import parse_overrides, validate

        options = self.made_options()
        values = options.model_dump(mode="json")
        for written in _ways(values, self.section):
            read = written if isinstance(written, dict) else parse_overrides(written)
            read = yaml.safe_load(yaml.safe_dump(read)).get(self.section, {})
            again = validate(type(options), read, self.section)
            assert again == options, f"{written} is read as {again!r}, not {options!r}"
            # Equal values may still be written differently: 32 and 32.0.
            assert again.model_dump_json() == options.model_dump_json(), (
                f"the defaults of {type(options).__name__} are of other types than its fields: a "
                f"recipe says {again.model_dump(mode='json')} where none says {values}"
            )

    def test_a_wrong_option_is_one_line(self) -> None:
        """An unknown option is refused, and every refusal names the option."""
        from adapterhub.config import validate

        if not self.section:
            return
        options = self.made_options()
        values = options.model_dump(mode="json")
        wrong = "not\na value of any kind"
        text = text_raised(
            AdzError,
            lambda: validate(type(options), values | {"no_such_option": wrong}, self.section),
            f"{type(options).__name__} takes any option: set extra='forbid'",
        )
        _check_line(text, f"{self.section}.no_such_option")
        for name in values:
            try:
                validate(type(options), values | {name: wrong}, self.section)
            except AdzError as error:
                _check_line(str(error), f"{self.section}.{name}")


def check_refusal(result: Result, *, code: int | None = None) -> str:
    """The one line on stderr of a command that refused; nothing may be on stdout."""
    lines = [line for line in result.err.splitlines() if line.startswith("adz: ")]
    assert result.code not in (0, None), f"it was not refused: {result.out}"
    assert code is None or result.code == code, f"exit code {result.code}, not {code}"
    assert "Traceback" not in result.err, f"a traceback:\n{result.err}"
    assert len(lines) == 1, f"one line that begins with 'adz: ' was expected:\n{result.err}"
    return lines[0]


def text_raised(kind: type[Exception], call: Callable[[], object], otherwise: str) -> str:
    """The text of what `call` raises; fails with `otherwise` where it raises nothing."""
    try:
        call()
    except kind as error:
        return str(error)
    pytest.fail(otherwise)


def check_success(result: Result) -> str:
    """The stdout of a command that worked."""
    assert result.code == 0, f"exit code {result.code}: {result.err}"
    assert "Traceback" not in result.err, result.err
    return result.out


def _check_line(text: str, option: str) -> None:
    assert "\n" not in text, f"the error has several lines: {text!r}"
    assert option in text, f"the error does not name {option}: {text!r}"


def _ways(values: Mapping[str, Any], section: str) -> Iterator[dict[str, Any] | list[str]]:
    """The values as a recipe's mapping, and as the arguments of `-o`."""
    yield {section: dict(values)}
    yield [f"{section}.{name}={json.dumps(value)}" for name, value in values.items()]


@cache
def _heavy_imports(hooks: str, options: str, path: tuple[str, ...]) -> tuple[str, str]:
    """What a process that reads only the descriptors, and then the options, has imported."""
    command = [sys.executable, "-c", _IMPORTS, hooks.partition(":")[0], options]
    done = subprocess.run(
        [*command, " ".join(_HEAVY_FOR_HOOKS), " ".join(_HEAVY)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in path if p)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{hooks} cannot be imported: {done.stderr}"
    by_hooks, by_options = done.stdout.splitlines()
    return by_hooks, by_options
