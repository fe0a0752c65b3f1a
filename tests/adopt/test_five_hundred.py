"""A lived-in machine: every seeded fault is found, nothing else is said, what is clean goes in.

ADOPT_ADAPTERS sets how many adapters there are; 500 is the full form.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub import adopt
from adapterhub.plugins import open_registry

from .adapter_folders import Machine
from .zoo import build

Adz = Callable[..., Any]
COUNT = int(os.environ.get("ADOPT_ADAPTERS", "120"))


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, tiny_base_dir: Path) -> Machine:
    return build(tmp_path_factory.mktemp("machine"), COUNT, tiny_base_dir)


def test_every_fault_is_found_and_none_is_made_up(
    adz: Adz, adz_process: Adz, machine: Machine, tiny_base_dir: Path
) -> None:
    assert adz("base", "add", "tiny", tiny_base_dir).code == 0
    folders = [machine.root, machine.cache.parent]
    size = sum(f.stat().st_size for root in folders for f in root.rglob("*") if f.is_file())
    began = time.monotonic()
    result = adz_process("adopt", *folders, "--yes", "--json")
    seconds = time.monotonic() - began
    assert result.code == 0, result.err
    value = json.loads(result.out)
    found = {Path(one["directory"]): one for one in value["adapters"]}
    assert found.keys() == machine.expected.keys()
    held = {
        path: sorted(f["kind"] for f in one["faults"] if f["level"] != "note")
        for path, one in found.items()
    }
    assert held == machine.expected
    notes = {
        path: sorted(f["kind"] for f in one["faults"] if f["level"] == "note")
        for path, one in found.items()
        if not machine.expected[path]
    }
    assert notes == {path: machine.notes[path] for path in notes}
    bases = {p: one["base"]["name"] for p, one in found.items() if one["status"] == "clean"}
    assert bases == machine.bases
    check_imports(value["adopted"], machine)
    seeded = sum(map(bool, machine.expected.values()))
    print(
        f"\n{len(found)} adapters, {size / 1e6:.0f} MB: {seeded} faults of "
        f"{len(Counter(k for kinds in held.values() for k in kinds))} kinds found, none made up, "
        f"surveyed in {value['seconds']:.1f} s; {len(bases)} imported, {seconds:.1f} s in all"
    )
    if COUNT >= 500:
        assert seconds < 30


def check_imports(adopted: list[dict[str, Any]], machine: Machine) -> None:
    """All that is clean went in, unchanged, each under a name of its own."""
    assert {Path(one["directory"]) for one in adopted} == machine.bases.keys()
    assert [one["problem"] for one in adopted if one["problem"]] == []
    registry = open_registry()
    assert len({one["reference"] for one in adopted}) == len(adopted)
    assert all(one["reference"].endswith("@1") for one in adopted)
    for one in adopted[:: max(1, len(adopted) // 10)]:
        version = registry.resolve(one["reference"])
        assert version.manifest.base.status == "asserted"
        assert version.manifest.base.name == machine.bases[Path(one["directory"])]
        for file in registry.path(version).iterdir():
            assert file.read_bytes() == Path(one["directory"], file.name).read_bytes()


def test_a_second_time_all_is_known(adz: Adz, machine: Machine, tiny_base_dir: Path) -> None:
    assert adz("base", "add", "tiny", tiny_base_dir).code == 0
    folder = machine.root / "dup"
    first = json.loads(adz("adopt", folder, "--yes", "--json").out)
    assert [one["reference"] for one in first["adopted"]] == ["first@1"]
    again = json.loads(adz("adopt", folder, "--yes", "--json").out)
    assert again["adopted"] == []
    kinds = {
        Path(one["directory"]).name: sorted(fault["kind"] for fault in one["faults"])
        for one in again["adapters"]
        if Path(one["directory"]).parent == folder
    }
    assert kinds == {"first": ["known"]}


def test_every_kind_of_fault_is_seeded(machine: Machine) -> None:
    """A fault that the code can note and nobody seeds would prove nothing."""
    code = "".join(path.read_text("utf-8") for path in Path(adopt.__file__).parent.glob("*.py"))
    kinds = set(re.findall(r'add\(\s*"([a-z-]+)", "(?:error|held)"', code))
    assert len(kinds) > 20
    seeded = {kind for kinds in machine.expected.values() for kind in kinds}
    # Those of the registry are in tests of their own; root reads everything.
    assert kinds - seeded == {"known", "several-bases", "unreadable"}
