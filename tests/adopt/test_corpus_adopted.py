"""Published adapters, rebuilt small: adopting them finds no fault that they do not have.

ADOPT_ADAPTERS=500 takes all of the corpus, else every other one is looked at.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..registry.gates.rebuild import configuration, read, write_adapter, write_base

Adz = Callable[..., Any]
LEAST = 0.95
FULL = int(os.environ.get("ADOPT_ADAPTERS", "0")) >= 500


@pytest.mark.filterwarnings("ignore")
def test_published_adapters_have_no_faults(adz: Adz, tmp_path: Path) -> None:
    architectures, keysets = read("bases"), read("keysets")
    entries = [*read("published"), *read("experiments")][:: 1 if FULL else 2]
    (tmp_path / "bases").mkdir()
    for name in {entry["architecture"] for entry in entries}:
        write_base(architectures[name], tmp_path / "bases" / name)
    for number, entry in enumerate(entries):
        method = entry["keys"].split()[0]
        write_adapter(
            method, configuration(entry, keysets), architectures[entry["architecture"]],
            tmp_path / "adapters" / str(number),
        )  # fmt: skip
    result = adz("adopt", tmp_path, "--json")
    assert result.code == 0, result.err
    found = {Path(a["directory"]).name: a for a in json.loads(result.out)["adapters"]}
    assert len(found) == len(entries) >= (100 if FULL else 50)
    faults = {
        number: [fault for fault in found[str(number)]["faults"] if fault["level"] == "error"]
        for number in range(len(entries))
    }
    wrong = {number: faults[number] for number in faults if faults[number]}
    # What the registry's gates refuse is their say; nothing is refused beside it.
    assert {fault["kind"] for found in wrong.values() for fault in found} <= {"refused"}, wrong
    assert len(wrong) <= (1 - LEAST) * len(entries), wrong
    print(f"\n{len(entries) - len(wrong)} of {len(entries)} published adapters without a fault")
