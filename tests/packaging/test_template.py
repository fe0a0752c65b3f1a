"""examples/adz-plugin-template: installed as a stranger's distribution, used through adz."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
TEMPLATE = ROOT / "examples" / "adz-plugin-template"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder that holds the installed template and nothing else."""
    folder = tmp_path_factory.mktemp("template")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--target", folder, TEMPLATE],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


@pytest.fixture
def adz_with_template(adz, installed, monkeypatch):
    """Run `adz` where the template can be imported; every call succeeds."""
    monkeypatch.syspath_prepend(installed)

    def run(*arguments):
        done = adz(*arguments)
        assert done.code == 0, done.err
        return done

    yield run
    for name in [n for n in sys.modules if n.startswith("adz_plugin_template")]:
        del sys.modules[name]


def test_its_own_tests_pass(installed, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TEMPLATE / "tests"],
        env={"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


def test_adz_shows_where_its_parts_came_from(adz_process, installed):
    done = adz_process("plugins", "--json", env={"PYTHONPATH": str(installed)})
    records = json.loads(done.out)
    (record,) = [r for r in records if r["distribution"] == "adz-plugin-template"]
    assert record["status"] == "loaded"
    assert record["components"] == {
        "method": ["bitfit"],
        "quantizer": ["round8"],
        "objective": ["smooth"],
        "format": ["paper"],
        "merge rule": ["median"],
        "merge space": ["full-svd"],
        "engine": ["echo"],
        "remote": ["readable"],
        "metric": ["word_f1"],
        "command": ["census"],
    }


def test_several_parts_through_adz(adz_with_template, adz_process, tiny_base_dir, tmp_path):
    data = tmp_path / "data.jsonl"
    rows = [{"prompt": f"{i} plus {i} is", "completion": f" {2 * i}"} for i in range(40)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    adz_with_template("base", "add", "tiny", tiny_base_dir)
    quick = ("--data", data, "-o", "training.max_steps=2", "-o", "training.batch_size=4")

    adz_with_template("train", "--method", "bitfit", "--name", "biases", *quick)
    manifest = json.loads(adz_with_template("show", "biases", "--json").out)["manifest"]
    assert (manifest["method"], manifest["storage"]) == ("bitfit", "own")
    assert manifest["environment"]["adz-plugin-template"] == "0.1.0"

    for seed in range(3):
        adz_with_template("train", "--name", f"lora{seed}", "-o", f"training.seed={seed}", *quick)
    adz_with_template("merge", "--median", "lora0", "lora1", "lora2", "--name", "middle")
    assert [p["name"] for p in parents_of("middle", adz_with_template)] == [
        "lora0", "lora1", "lora2",
    ]  # fmt: skip

    scores = adz_with_template(
        "eval", "biases", "--data", data, "--metric", "word_f1", "--limit", "4", "--json"
    )
    assert "word_f1" in scores.out

    # Without its plugin the adapter is still there, and what is missing is said.
    without = adz_process("eval", "biases", "--data", data, "--limit", "4")
    assert without.code == 2
    assert "unknown method 'bitfit'" in without.err


def parents_of(name, run):
    return json.loads(run("show", name, "--json").out)["manifest"]["parents"]
