"""The conformance classes find what is broken, each for its own reason."""

from __future__ import annotations

import inspect
import shutil
import sys
from pathlib import Path

import pytest

# The module beside this file.
sys.path.insert(0, str(Path(__file__).parent))

from faults import FAULTS, KINDS

from adapterhub import testing

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "adz-plugin-template"
CASES = [(name, fault) for name, faults in FAULTS.items() for fault in faults]


def test_there_is_a_broken_example_of_each_kind():
    assert set(FAULTS) == set(KINDS)
    classes = {name for name in testing.__all__ if name.endswith("Conformance")}
    assert {kind.__name__ for kind in KINDS.values()} == classes
    assert len(CASES) >= 20


@pytest.mark.parametrize(
    ("name", "fault"), CASES, ids=[f"{n}-{i}" for i, (n, _) in enumerate(CASES)]
)
def test_fault_is_caught(name, fault, request, with_plugin, tmp_path):
    project = tmp_path / "broken"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("__pycache__"))
    file = project / "src" / "adz_plugin_template" / fault.file
    text = file.read_text()
    assert fault.good in text
    file.write_text(text.replace(fault.good, fault.bad))
    with_plugin(project)

    class Case(KINDS[name]):
        rows = ({"title": "On words", "keywords": ["words"], "abstract": "We count."},)
        broken = ({"title": "", "keywords": [], "abstract": "We count."},)
        agreement = 0.9
        method = "lora"

        def url(self, folder):
            return f"readable://{folder}/share"

    if name == "smooth":
        del Case.rows
    case = Case()
    Case.name = name
    test = getattr(case, fault.caught_by)
    given = {
        parameter: request.getfixturevalue("tiny_base" if parameter == "base" else parameter)
        for parameter in inspect.signature(test).parameters
    }
    with pytest.raises((Exception, pytest.fail.Exception)) as caught:
        test(**given)
    assert fault.says in f"{type(caught.value).__name__}: {caught.value}"
