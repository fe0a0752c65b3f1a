"""`adz ls` and `adz show`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from adapterhub.manifest import Manifest, sha256_of

MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


def test_ls(stored: Any, adz: Any) -> None:
    assert adz("ls").out.splitlines() == [
        "name    versions  latest  aliases  method  rank  base     size   made by",
        f"french         1       1           lora       2  unknown  {size(stored)}  merge",
        f"sql            2       2  prod@1   lora       2  unknown  {size(stored)}  import",
    ]
    listed = json.loads(adz("ls", "--json", "--alias", "prod").out)
    assert [(e["name"], e["versions"], e["aliases"]) for e in listed] == [("sql", 2, {"prod": 1})]


def size(registry: Any) -> str:
    return f"{sum(f.size for f in registry.resolve('sql').manifest.files.values())} B"


def test_ls_of_nothing_says_what_to_do(adz: Any) -> None:
    result = adz("ls")
    assert (result.code, result.out) == (0, "")
    assert result.err == "no adapter yet: see 'adz train --help'\n"
    assert adz("ls", "--json").out == "[]\n"
    assert adz("ls", "--method", "dora").err == "no adapter matches\n"
    assert adz("ls", "--removed").err == "nothing was removed\n"


def test_ls_with_an_unknown_base(stored: Any, adz: Any) -> None:
    result = adz("ls", "--base", "llama")
    assert result.code == 2
    assert result.err.startswith("adz: unknown base 'llama'")


def test_show(stored: Any, adz: Any) -> None:
    version = stored.resolve("sql@prod")
    stored.attest(version, "eval", {"metric": "exact_match", "score": 0.875})
    out = adz("show", "sql@prod").out
    for text in (
        "sql@1  (prod)", version.digest, "rank 2, alpha 4",
        "unknown: it is neither served nor merged",
        "adapter_model.safetensors", "metrics.jsonl", "artifact", "sql.jsonl", "loss.train",
        "0.123457", "exact_match", "0.875",
    ):  # fmt: skip
        assert text in out
    assert "sql@1    operand  0.5" in adz("show", "french").out
    value = json.loads(adz("show", "sql@prod", "--json").out)
    assert value["digest"] == version.digest == sha256_of(Manifest(**value["manifest"]).canonical())
    assert value["attestations"][0]["body"]["score"] == 0.875


def test_show_says_who_scored_signed_needs_and_brought_it(stored: Any, adz: Any) -> None:
    version = stored.resolve("sql@2")
    evaluation = {
        "metric": "exact_match", "score": 0.5, "n": 40, "shots": 2, "interval": [1e-18, 0.6],
        "base": {"score": 0.25}, "data": {"file": "test.jsonl"},
    }  # fmt: skip
    stored.attest(version, "evaluation", evaluation)
    for _ in range(2):
        body = {"key": "sha256:" + "ab" * 32, "file": "release.pub", "bundle": "{}"}
        stored.attest(version, "signature", body)
    stored.lease([version], "serve 127.0.0.1:8000", 3600)
    lines = adz("show", "sql").out.splitlines()
    assert "  signed by  release.pub (sha256:abababababab)" in lines
    assert any(line.startswith("  needed by  serve 127.0.0.1:8000 until 2") for line in lines)
    assert "  test.jsonl  exact_match  0.5    0 to 0.6  0.25  40    2" in lines
    assert lines[-1] == "see also: adz log sql, adz lineage sql@2"
    assert "bundle" not in "".join(lines)
    value = json.loads(adz("show", "sql", "--json").out)
    assert [lease["holder"] for lease in value["leases"]] == ["serve 127.0.0.1:8000"]
    assert value["source"] is None


def test_show_card(stored: Any, adz: Any) -> None:
    from adapterhub.cards import model_card

    card = adz("show", "sql", "--card").out
    assert card == model_card(stored, stored.resolve("sql"))
    assert json.loads(adz("show", "sql", "--card", "--json").out) == {"card": card}
    assert adz("show", "sql", "--card", "--path").code == 2


def test_show_path_prints_what_peft_opens_and_nothing_else(stored: Any, adz: Any) -> None:
    path = Path(adz("show", "sql", "--path").out.rstrip("\n"))
    assert set(load_file(path / "adapter_model.safetensors")) == {
        f"{MODULE}.lora_A.weight", f"{MODULE}.lora_B.weight",
    }  # fmt: skip
    assert json.loads(adz("show", "sql", "--path", "--json").out) == {"path": str(path)}


def test_ls_filters_sorts_and_pages(stored: Any, adz: Any) -> None:
    for reference, score in (("sql@2", 0.5), ("french", 0.75)):
        body = {"metric": "exact_match", "score": score}
        stored.attest(stored.resolve(reference), "evaluation", body)
    lines = adz("ls", "--metric", "exact_match", "--sort", "metric", "--reverse").out.splitlines()
    assert [(line.split()[0], line.split()[-1]) for line in lines] == [
        ("name", "metric"), ("french", "0.75"), ("sql", "0.5"),
    ]  # fmt: skip
    assert [e["name"] for e in json.loads(adz("ls", "--name", "s*", "--json").out)] == ["sql"]
    lines = adz("ls", "--all-versions", "--limit", "2", "--offset", "1").out.splitlines()
    assert [line.split()[0] for line in lines] == ["version", "sql@1", "sql@2"]
    assert adz("ls", "--metric", "exact_match>0.9").err == "no adapter matches\n"
    assert "did you mean exact_match?" in adz("ls", "--metric", "exact_mach").err
    assert adz("ls", "--all-versions", "--removed").code == 2


def test_the_commands_import_no_torch(stored: Any, home: Path) -> None:
    import subprocess

    code = (
        "import sys; from adapterhub.cli import main;"
        "[main(a.split()) for a in ('ls', 'show sql', 'log sql', 'gc', 'fsck')];"
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "False"
