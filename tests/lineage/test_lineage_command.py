"""`adz lineage`: the tree, the flowchart and the drawing."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.manifest import Version

Adz = Callable[..., Any]
Family = dict[str, Version]


def test_tree(adz: Adz, family: Family, tiny_base: Any) -> None:
    base = f"base tiny  LlamaForCausalLM, {tiny_base.digests.weights[7:19]}"
    assert adz("lineage", "last").out.splitlines() == [
        "last@1  lora, rank 2, converted",
        "├── source: both@1  lora, rank 2, ties in core, density 0.2",
        "│   ├── 0.5 x sql@1  lora, rank 2, trained",
        f"│   │   ├── {base}",
        "│   │   └── data sql.jsonl  30 rows, alpaca, abababababab",
        "│   ├── 0.25 x french@1  lora over nf4, rank 2, trained",
        f"│   │   └── {base}",
        "│   └── -0.25 x style@1  removed here",
        "└── initial: sql@1  lora, rank 2, trained (see above)",
    ]


def test_children(adz: Adz, family: Family) -> None:
    lines = adz("lineage", "sql", "--children").out.splitlines()
    assert lines[lines.index("made from it") :] == [
        "made from it",
        "sql@1  lora, rank 2, trained",
        "├── 0.5 x both@1  lora, rank 2, ties in core, density 0.2",
        "│   └── source: last@1  lora, rank 2, converted",
        "└── initial: last@1  lora, rank 2, converted",
    ]
    assert adz("lineage", "last", "--children").out.endswith("\n\nmade from it\nnothing\n")


def test_json_names_every_version_once(adz: Adz, family: Family) -> None:
    value = json.loads(adz("lineage", "last", "--json").out)
    assert value["root"] == family["last"].digest
    versions = {n["id"]: n["state"] for n in value["nodes"] if n["kind"] == "version"}
    assert versions == {v.digest: "removed" if n == "style" else "here" for n, v in family.items()}
    edges = {(e["source"], e["target"]): e["label"] for e in value["edges"]}
    assert edges[family["style"].digest, family["both"].digest] == "-0.25"
    assert edges[family["both"].digest, family["last"].digest] == "source"


def test_parents_that_never_were_here(adz: Adz, commit: Any, family: Family) -> None:
    """As of a pulled version: another version of the same number is not the parent."""
    stranger = Version("sql", 1, "sha256:" + "0" * 64, family["sql"].manifest)
    unknown = Version("secret", 9, "sha256:" + "1" * 64, family["sql"].manifest)
    commit("pulled", (stranger, 0.5), (unknown, 0.5))
    assert adz("lineage", "pulled").out.splitlines()[1:] == [
        "├── 0.5 x sql@1  not in this registry",
        "└── 0.5 x secret@9  not in this registry",
    ]


def test_restored_parents_are_here(adz: Adz, family: Family) -> None:
    assert "style@1  removed here" in adz("lineage", "both").out
    assert adz("restore", "style").code == 0
    assert "-0.25 x style@1  lora, rank 2, trained" in adz("lineage", "both").out


def test_an_unknown_base_and_one_that_is_gone(adz: Adz, commit: Any, tiny_base: Any) -> None:
    from adapterhub.manifest import BaseLink

    commit("stray", base=BaseLink(status="unknown"), made_by="import")
    assert adz("lineage", "stray").out.splitlines()[1] == "└── unknown: base unknown base"
    digests = tiny_base.digests.model_copy(update={"weights": "sha256:" + "7" * 64})
    commit("far", base=BaseLink(status="recorded", name="llama", digests=digests))
    line = adz("lineage", "far").out.splitlines()[1]
    assert line == "└── base llama  777777777777, not in this registry"


def test_mermaid(adz: Adz, family: Family) -> None:
    lines = adz("lineage", "both", "--mermaid").out.splitlines()
    assert lines[0] == "flowchart LR"
    declared = re.compile(r'    (n\d+)(?:\["|\{\{"|\[\(")([^"`<>]|<br/>)*(?:"\]|"\}\}|"\)\])')
    nodes = {m[1] for line in lines if (m := declared.fullmatch(line))}
    assert len(nodes) == 6
    edges = [line.split() for line in lines if "-->" in line]
    assert {end for edge in edges for end in (edge[0], edge[-1])} == nodes
    root = next(line for line in lines if "both@1" in line).split("[")[0].strip()
    assert f"    class {root} asked" in lines
    gone = next(line for line in lines if "style@1" in line).split("[")[0].strip()
    assert f"    class {gone} gone" in lines


def test_svg(adz: Adz, family: Family, tmp_path: Path) -> None:
    file = tmp_path / "lineage.svg"
    result = adz("lineage", "last", "--svg", file)
    assert (result.code, result.out, result.err) == (0, "", f"wrote {file}\n")
    root = ET.fromstring(file.read_text())
    texts = ["".join(t.itertext()) for t in root.iter("{http://www.w3.org/2000/svg}text")]
    for text in ("last@1", "both@1", "style@1", "removed here", "sql.jsonl", "-0.25", "source"):
        assert text in texts
    both = json.loads(adz("lineage", "last", "--svg", file, "--json").out)
    assert both["root"] == family["last"].digest


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("sqll",), 2, "unknown adapter or base 'sqll' (did you mean sql?)"),
        (("tinny",), 2, "unknown adapter or base 'tinny' (did you mean tiny?)"),
        (("sql@9",), 2, "sql has no version 9"),
        (("sql", "--svg", "/nowhere/x.svg"), 1, "No such file or directory: /nowhere/x.svg"),
    ],
)
def test_bad_input(
    adz: Adz, family: Family, arguments: tuple[str, ...], code: int, message: str
) -> None:
    result = adz("lineage", *arguments)
    assert result.code == code
    assert message in result.err
    assert result.err.count("\n") == 1
