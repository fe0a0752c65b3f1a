"""`adz train`: the short form, the order of precedence, dry runs, and one line for a mistake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

FAST = ("-o", "training.max_steps=2", "-o", "training.batch_size=4", "-o", "training.lr=1e-2")


@pytest.fixture
def tiny(adz: Any, tiny_base_dir: Path) -> None:
    assert adz("base", "add", "tiny", tiny_base_dir).code == 0


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    path = tmp_path / "My Data.v2.jsonl"
    rows = [{"prompt": f"{n} ->", "completion": f" {n + 1}"} for n in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_short_form_takes_the_only_base_and_a_name_from_the_file(
    adz: Any, tiny: None, data_file: Path
) -> None:
    done = adz("train", "--method", "lora", "--data", data_file, *FAST)
    assert done.code == 0, done.err
    assert done.out.startswith("my-data@1  train loss ")
    for command in ("adz eval my-data", "adz chat my-data", "adz serve tiny"):
        assert command in done.out
    assert "the loss sees (all but [...]): [0 ->] 1<|im_end|>" in done.err
    again = adz("train", "--data", data_file, *FAST, "--json")
    shown = json.loads(again.out)
    assert shown["reference"] == "my-data@2"
    assert shown["metrics"]["steps"] == 2


@pytest.mark.parametrize(
    ("word", "hint"),
    [("tiny", "--base tiny names the base"), ("r=8,16", "several values go behind --sweep")],
)
def test_a_word_too_many_is_refused_with_its_flag(
    word: str, hint: str, adz: Any, tiny: None, data_file: Path
) -> None:
    done = adz("train", word, "--data", data_file)
    assert done.code == 2
    assert done.err == f"adz: unexpected {word!r} ({hint})\n"


def test_flags_win_over_options_and_these_over_the_recipe(
    adz: Any, tiny: None, data_file: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: from-recipe\nmethod: {name: lora, r: 2, alpha: 3}\n"
        f"data: {{train: {json.dumps(data_file.name)}, holdout: 0.25}}\n"
        "training: {epochs: 7, seed: 5}\n"
    )
    done = adz("train", "-c", recipe, "-o", "method.r=4", "-o", "name=from-option",
               "--name", "from-flag", "--dry-run", "--json")  # fmt: skip
    assert done.code == 0, done.err
    shown = json.loads(done.out)["recipe"]
    assert shown["name"] == "from-flag"
    given = {"name": "lora", "r": 4, "alpha": 3.0, "dropout": 0.0, "targets": "all-linear"}
    assert given.items() <= shown["method"].items()
    assert shown["training"]["epochs"] == 7
    assert shown["training"]["seed"] == 5
    assert shown["training"]["batch_size"] == 16
    assert shown["data"]["train"] == str(data_file)
    assert shown["base"] == "tiny"


def test_an_exported_recipe_trains_again_from_where_it_was_trained(
    adz: Any, tiny: None, data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data_file.parent)
    assert adz("train", "--data", data_file.name, "--name", "first", *FAST).code == 0
    folder = tmp_path / "exported"
    assert adz("export", "first", folder, "--with-artifacts").code == 0
    recipe = folder / "artifacts" / "recipe.yaml"
    again = adz("train", "-c", recipe, "--name", "second", "--json")
    assert again.code == 0, again.err
    shown = [
        json.loads(adz("show", name, "--json").out)["manifest"] for name in ("first", "second")
    ]
    assert shown[0]["data"] == shown[1]["data"]
    # What lies beside the recipe comes first.
    monkeypatch.chdir(tmp_path.parent)
    done = adz("train", "-c", recipe, "--name", "third")
    assert (done.code, done.out) == (2, "")
    assert str(recipe.parent / data_file.name) in done.err


def test_a_dry_run_shows_everything_and_leaves_nothing(
    adz: Any, tiny: None, data_file: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterhub import models

    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a dry run loads no base")

    monkeypatch.setattr(models, "load_base", refuse)
    done = adz("train", "--data", data_file, "--method", "dora", "--dry-run")
    assert done.code == 0, done.err
    for part in (
        "name: dora", "lr        0.0005 (suits dora)", "q_proj x2", "rows (prompt_completion)",
        "[0 ->] 1<|im_end|>", "33,792 trainable of 148,800 parameters",
    ):  # fmt: skip
        assert part in done.out
    assert not (home / "runs").exists()
    assert (
        json.loads(adz("train", "--data", data_file, "--dry-run", "--json").out)["data"]["steps"]
        == 6
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "loar"), "unknown method 'loar' (did you mean lora"),
        (("--quantizer", "nf5"), "unknown quantizer 'nf5' (did you mean nf4"),
        (("--base", "tinny"), "unknown base 'tinny' (did you mean tiny?)"),
        (("-o", "method.rank=3"), "unknown option method.rank"),
        (
            ("-o", "training.epoch=3"),
            "training.epoch (did you mean training.epochs?)",
        ),
        (("-o", "method.r=0"), "method.r: input should be greater than or equal to 1, got 0"),
        (("-o", "data.holdout=1.5"), "data.holdout"),
        (("-o", "objective=ppo"), "there is no objective ppo (TRL no longer has PPO"),
        (("--name", "../up"), "'../up' is not a valid name"),
        (("--name", "tiny"), "'tiny' is the name of a base"),
        (("--format", "text"), "the column 'text' is not there"),
        (("-o", "data.prompt_format=caht"), "data.prompt_format"),
        (("-c", "none.yaml"), "there is no recipe none.yaml"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    arguments: tuple[str, ...], message: str, adz: Any, tiny: None, data_file: Path, home: Path
) -> None:
    done = adz("train", "--data", data_file, *arguments)
    assert done.code in (1, 2)
    assert done.out == ""
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (home / "runs").exists()


def test_no_data_no_base_and_a_missing_file(adz: Any, data_file: Path, tiny_base_dir: Path) -> None:
    assert "no data is given" in adz("train").err
    assert "there is no base model yet" in adz("train", "--data", data_file).err
    assert adz("base", "add", "tiny", tiny_base_dir).code == 0
    done = adz("train", "--data", data_file.with_name("no.jsonl"))
    assert done.code == 2
    assert "there is no data file" in done.err


def test_a_base_that_changed_under_its_name_is_refused(
    adz: Any, tiny_base_dir: Path, data_file: Path, tmp_path: Path
) -> None:
    import shutil

    copy = Path(shutil.copytree(tiny_base_dir, tmp_path / "copy"))
    assert adz("base", "add", "tiny", copy).code == 0
    weights = copy / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    done = adz("train", "--data", data_file, *FAST)
    assert done.code == 3
    assert "changed under its name" in done.err


def test_ctrl_c_ends_with_130_and_resume_goes_on(
    adz: Any, tiny: None, data_file: Path, home: Path
) -> None:
    arguments = [
        "train", "--data", str(data_file), "--name", "long", "-o", "training.max_steps=100000",
        "-o", "training.save_every=5",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "adapterhub.cli", *arguments],
        env={**os.environ, "ADZ_HOME": str(home)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list(home.glob("runs/long-*/checkpoint-*/complete")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert "--resume goes on from step" in err
    assert adz("ls", "--json").out.strip() in ("", "[]")


@pytest.mark.model
def test_a_short_training_lowers_the_held_out_loss_of_the_real_base(
    adz: Any, real_base: Path
) -> None:
    data = Path(__file__).parents[2] / "examples" / "data" / "wordnet.train.jsonl"
    done = adz("train", "--data", data, "--json", "-o", "training.max_steps=6", "-o",
               "training.batch_size=8", "-o", "training.lr=1e-3",
               "-o", "training.eval_rows=32")  # fmt: skip
    assert done.code == 0, done.err
    metrics = json.loads(done.out)["metrics"]
    assert metrics["holdout_loss"] < 0.8 * metrics["holdout_loss_base"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-o", "method.rank=4"], "unknown option method.rank (there are r, targets, exclude,"),
        (["--nproc", "0"], "0 is not in the range x>=1"),
        (["--parallel", "zero2"], "--parallel zero2 shares among processes (give --nproc too)"),
        (["--sweep", "r=2,4", "--nproc", "2"], "a sweep has no --nproc"),
    ],
)
def test_what_would_be_ignored_is_refused(
    flags: list[str], message: str, adz: Any, tiny: None, data_file: Path
) -> None:
    done = adz("train", "--data", data_file, *flags)
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1
