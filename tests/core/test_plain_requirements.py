"""The quick answer to a plain requirement is packaging's."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from adapterhub.plugin_checks import plain_answer

VERSIONS = ("0.1.0", "0.1", "1.0.0", "1.10", "2", "10.0.1")
CLAUSES = [f"{o}{v}" for o in (">=", "<=", "==", "!=", ">", "<") for v in (*VERSIONS, "1.0")]


def test_it_is_what_packaging_says() -> None:
    both = [f"{a},{b}" for a, b in itertools.product(CLAUSES, repeat=2)]
    texts = ["adapterhub", *(f"adapterhub{spec}" for spec in [*CLAUSES, *both])]
    texts += ["adapterhub (>=0.1)", "Adapterhub >= 0.1 , < 2"]
    for text, version in itertools.product(texts, VERSIONS):
        expected = Requirement(text).specifier.contains(version, prereleases=True)
        assert plain_answer(text, version) is expected, (text, version)


@pytest.mark.parametrize(
    "text",
    [
        "adapterhub~=0.1", "adapterhub==0.1.*", "adapterhub[train]>=0.1", "adapterhub>=0.1rc1",
        'adapterhub>=9; python_version < "3"', "adapterhub-extra>=9", "adapterhub===0.1",
    ],
)  # fmt: skip
def test_what_is_less_plain_is_left_to_packaging(text: str) -> None:
    assert plain_answer(text, "0.1.0") is None


def test_a_pre_release_of_ours_too() -> None:
    assert plain_answer("adapterhub>=0.1", "0.2.0rc1") is None


def test_plain_requirements_do_not_import_packaging() -> None:
    code = (
        "import sys; from adapterhub.entry_points import EntryPoint;"
        "from adapterhub.plugin_checks import incompatibility as i;"
        "print([i(EntryPoint('x', 'x', 'x', '1', (r,))) for r in"
        " ('adapterhub>=0.1,<9', 'adapterhub>=9')], 'packaging' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[None, 'it needs adapterhub>=9, this is 0.1.0'] False\n"
