"""What goes wrong at the shell: one line, the right exit code, nothing lost, nothing left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from adapterhub.plugins import open_registry
from adapterhub.staging import home_staging, staging_folder, sweep

ROW = '{"prompt": "a", "completion": "b"}\n'


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text(ROW * 8)
    return path


@pytest.fixture
def moving_base(adz: Any, tiny_base_dir: Path, tmp_path: Path) -> Path:
    """A base known as `tiny` whose files the test may change."""
    copy = Path(shutil.copytree(tiny_base_dir, tmp_path / "copy"))
    assert adz("base", "add", "tiny", copy).code == 0
    return copy


@pytest.mark.usefixtures("tiny_base")
@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (b"data:\n", "no data is given"),
        (b"data: rows.jsonl\n", "no data is given"),
        (b"data: {train: 3}\n", "data.train: input should be a path, got 3"),
        (b"data: {train: d, holdout: [1]}\n", "data.holdout: input should be a number, got [1]"),
        (b"method:\ndata: {train: d}\n", "method: input should be a mapping of options, got None"),
        (b"training: 3\ndata: {train: d}\n", "training: input should be a mapping of options"),
        (b"training: {lr: x}\ndata: {train: d}\n", "training.lr: input should be a number"),
        (
            b"training: {epochz: 1}\ndata: {train: d}\n",
            "training.epochz (did you mean training.",
        ),
        (b"1: 2\ndata: {train: d}\n", "unknown option 1"),
        (b"- 1\n", "is not a mapping of options"),
        (b"a: [1\nb: 2\n", "is malformed at line 2"),
        (b"\xff\xfe", "is not UTF-8 (save the file as UTF-8)"),
    ],
)
def test_a_wrong_recipe_is_one_line_without_class_names(
    recipe: bytes, message: str, adz: Any, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(recipe)
    done = adz("train", "-c", path)
    assert (done.code in (1, 2), done.out) == (True, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    for jargon in ("Errno", "codec", "class", "pathlib", "instance of", "dictionary"):
        assert jargon not in done.err


@pytest.mark.usefixtures("tiny_base")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 200_000, "line 1 is no row"),
        ('{"a": ' * 200_000, "line 1 is no row"),
        ('{"text": ' + "1" * 5000 + "}", "line 1 is no row"),
        ('{"prompt": 1, "completion": "b"}', "prompt (not text), completion"),
    ],
)
def test_data_that_no_format_can_hold(
    content: str, message: str, adz: Any, data_file: Path, home: Path
) -> None:
    data_file.write_text(content)
    done = adz("train", "--data", data_file, "--name", "x")
    assert (done.code in (1, 2), done.out) == (True, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert not (home / "runs").exists()


def test_a_home_that_is_a_file(adz: Any, home: Path) -> None:
    home.write_text("")
    for arguments in (["ls"], ["base", "add", "x", "y"], ["gc"]):
        done = adz(*arguments)
        assert done.code == 2
        assert done.err == f"adz: {home} is not a directory (set ADZ_HOME to a folder)\n"


@pytest.mark.parametrize("command", ["export", "merge"])
def test_a_target_below_a_file(command: str, adz: Any, commit_adapter: Any, tmp_path: Path) -> None:
    commit_adapter("a")
    commit_adapter("b", seed=1)
    file = tmp_path / "file"
    file.write_text("kept")
    target = file / "out"
    arguments = {"export": ("a", target), "merge": ("a", "b", "--out", target)}[command]
    done = adz(command, *arguments)
    assert done.code == 2
    assert done.err == f"adz: {file} is not a directory (give another path)\n"
    assert file.read_text() == "kept"


def test_a_merge_under_a_bases_name_stops_before_the_work(adz: Any, commit_adapter: Any) -> None:
    commit_adapter("a")
    commit_adapter("b", seed=1)
    done = adz("merge", "a", "b", "--name", "tiny")
    assert (done.code, done.out) == (2, "")
    assert done.err == "adz: 'tiny' is the name of a base (choose another with --name)\n"


def test_serving_an_adapter_as_a_base_says_what_it_is(adz: Any, commit_adapter: Any) -> None:
    commit_adapter("a")
    done = adz("serve", "a")
    assert (done.code, done.err) == (2, "adz: a is an adapter, not a base (see 'adz show a')\n")


@pytest.mark.parametrize(
    ("file", "part"),
    [("model.safetensors", "weights"), ("config.json", "architecture"),
     ("tokenizer.json", "tokenizer"), ("chat_template.jinja", "chat template")],
)  # fmt: skip
def test_run_and_merge_refuse_a_base_that_changed(
    file: str, part: str, adz: Any, moving_base: Path, tmp_path: Path
) -> None:
    content = (moving_base / file).read_bytes()
    change = {
        "model.safetensors": content[:-1] + bytes([content[-1] ^ 1]),
        "config.json": content.replace(b'"rms_norm_eps": ', b'"rms_norm_eps": 1'),
        "tokenizer.json": content.replace(b'"q"', b'"\\u00e4\\u00e4"'),
        "chat_template.jinja": content + b"x",
    }[file]
    assert change != content
    (moving_base / file).write_bytes(change)
    merge = ("merge", tmp_path, tmp_path.parent, "--base", "tiny")
    for arguments in (("run", "tiny", "hi"), merge):
        done = adz(*arguments)
        assert (done.code, done.out) == (3, "")
        assert f"changed under its name: what differs is its {part} (" in done.err.splitlines()[-1]


@pytest.mark.usefixtures("tiny_base")
def test_a_file_limit_while_training_is_one_line(
    adz: Any, data_file: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    def full(*_: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: File too large (os error 27)")

    monkeypatch.setattr("adapterhub.train.trainer.save_file", full)
    options = ("-o", "training.max_steps=2", "-o", "training.save_every=1")
    done = adz("train", "--data", data_file, "--name", "x", *options)
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[-1].startswith(f"adz: no space left on the disk of {home}")
    assert not list((home / "runs").iterdir())
    assert open_registry().names() == []


def test_an_interrupt_inside_an_import_is_no_traceback(
    adz: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()

    monkeypatch.setattr("adapterhub.cli.adz.main", stop)
    done = adz("ls")
    assert (done.code, done.err) == (130, "adz: interrupted\n")


def test_what_a_killed_process_was_preparing_is_swept(adz: Any, home: Path) -> None:
    code = (
        "import time\n"
        "from adapterhub.staging import home_staging, staging_folder\n"
        "with staging_folder(home_staging()) as folder:\n"
        "    (folder / 'part').write_bytes(b'x' * 1000)\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "ADZ_HOME": str(home)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        assert "freed 0 B" in adz("gc", "--grace", "0").out
        assert len(list(home_staging().iterdir())) == 1
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert "freed 0 B" in adz("gc").out
    assert "would free 1.0 kB" in adz("gc", "--grace", "0", "--dry-run").out
    assert "freed 1.0 kB" in adz("gc", "--grace", "0").out
    assert not any(home_staging().iterdir())


def test_the_next_export_sweeps_what_a_killed_one_left(
    adz: Any, commit_adapter: Any, tmp_path: Path
) -> None:
    commit_adapter("a")
    out = tmp_path / "exports"
    old, other = out / ".sql.adz-dead", out / ".french.adz-dead"
    for folder in (old, other):
        (folder / "export").mkdir(parents=True)
        os.utime(folder, (time.time() - 7200,) * 2)
    assert adz("export", "a", out / "sql").code == 0
    assert sorted(path.name for path in out.iterdir()) == [".french.adz-dead", "sql"]


def test_sweeping_follows_no_link(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    parent = tmp_path / "staging"
    with staging_folder(parent):
        (parent / "link").symlink_to(kept)
        assert sweep(parent, grace_seconds=0) == 0
    assert (kept / "file").read_text() == "x"


@pytest.mark.parametrize(
    "arguments",
    [
        ("lineage", "tinny"),
        ("eval", "tinny", "--data", "DATA"),
        ("run", "tinny", "x"),
        ("chat", "tinny"),
        ("export", "tinny", "--merged", "OUT"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_takes_an_adapter_or_a_base_offers_both(
    adz: Any, tiny_base: Any, tiny_adapters: Any, data_file: Path, tmp_path: Path, arguments: Any
) -> None:
    places = {"DATA": data_file, "OUT": tmp_path / "out"}
    done = adz(*(places.get(word, word) for word in arguments))
    lines = [line for line in done.err.splitlines() if line.startswith("adz: ")]
    assert done.code == 2
    assert lines == [
        "adz: unknown adapter or base 'tinny' (did you mean tiny or tiny-c or tiny-b?)"
    ]
    if arguments[0] == "export":
        assert not any((tmp_path / "out").glob("*"))


def test_convert_takes_no_base(adz: Any, tiny_base: Any) -> None:
    done = adz("convert", "tiny")
    assert done.code == 2
    assert "tiny is a base, not an adapter (see 'adz base show tiny')" in done.err
