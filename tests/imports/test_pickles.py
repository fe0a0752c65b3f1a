"""`--convert`: pickles of tensors become safetensors, and a malicious one has no effect."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adapterhub.imports import pickles
from adapterhub.imports.unpickle import plain_tensors
from adapterhub.plugins import open_registry

Adz = Callable[..., Any]
Q = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def pickled(make_adapter: Callable[..., Path]) -> Callable[[Any], Path]:
    """An adapter whose weights are a pickle of this value."""

    def make(value: Any, **options: Any) -> Path:
        directory = make_adapter()
        (directory / "adapter_model.safetensors").unlink()
        torch.save(value, directory / "adapter_model.bin", **options)
        return directory

    return make


def factors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {f"{Q}.lora_A.weight": torch.randn(4, 64), f"{Q}.lora_B.weight": torch.randn(64, 4)}


@pytest.mark.parametrize(("zipped", "dtype"), [(True, torch.float32), (False, torch.bfloat16)])
def test_tensors_are_stored_as_safetensors(
    adz: Adz, base: str, pickled: Callable[..., Path], zipped: bool, dtype: torch.dtype
) -> None:
    value = OrderedDict((name, tensor.to(dtype)) for name, tensor in factors().items())
    directory = pickled(value, _use_new_zipfile_serialization=zipped)
    before = sorted(path.name for path in directory.iterdir())
    result = adz("import", directory, "--name", "sql", "--convert", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["base"]["status"] == "asserted"
    assert sorted(path.name for path in directory.iterdir()) == before
    registry = open_registry()
    view = registry.path(registry.resolve("sql"))
    stored = load_file(view / "adapter_model.safetensors")
    assert stored.keys() == value.keys()
    assert all(torch.equal(stored[name], value[name]) for name in value)


def test_without_convert_it_is_refused_with_the_way_out(
    adz: Adz, pickled: Callable[..., Path]
) -> None:
    result = adz("import", pickled(factors()), "--name", "sql")
    assert result.code == 3
    assert "is a pickle, which can run code when it is loaded" in result.err
    assert "--convert reads it in a locked-down process" in result.err


def test_the_gates_follow(adz: Adz, base: str, pickled: Callable[..., Path]) -> None:
    value = factors()
    value[f"{Q}.lora_A.weight"][0, 0] = torch.nan
    result = adz("import", pickled(value), "--name", "sql", "--convert")
    assert result.code == 3
    assert "holds NaN or Inf" in result.err
    assert open_registry().names() == []


class Runs:
    """Unpickling calls a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


MARK = "/tmp/adz-test-pickle-ran"
MALICIOUS: dict[str, Callable[[], Any]] = {
    "a program": lambda: {"a": Runs(os.system, f"touch {MARK}")},
    "an endless loop": lambda: {"a": Runs(eval, "[0 for _ in iter(int, 1)]")},
    "a memory bomb": lambda: {"a": torch.zeros(1).expand(2**36)},
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_a_malicious_pickle_has_no_effect(
    adz: Adz, home: Path, pickled: Callable[..., Path], name: str
) -> None:
    Path(MARK).unlink(missing_ok=True)
    directory = pickled(MALICIOUS[name]())
    result = adz("import", directory, "--name", "sql", "--convert")
    assert result.code == 3, result.err
    assert result.out == ""
    lines = [line for line in result.err.splitlines() if not line.startswith("converting")]
    assert len(lines) == 1
    assert lines[0].startswith("adz: adapter_model.bin is refused: ")
    assert not Path(MARK).exists()
    assert open_registry().names() == []
    assert not any((home / "staging").iterdir())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([torch.zeros(1)], "it holds list, not tensors by name"),
        ({"a": {"b": torch.zeros(1)}}, "it holds dict under 'a'"),
        ({"a": "b"}, "it holds str under 'a'"),
        ({3: torch.zeros(1)}, "it holds Tensor under '3'"),
        ({"a": torch.zeros(2, 2).to_sparse()}, "'a' is no plain tensor"),
        ({"a": torch.zeros(1, device="meta")}, "'a' is no plain tensor"),
    ],
)
def test_only_tensors_by_name_are_taken(value: Any, reason: str) -> None:
    with pytest.raises(TypeError, match=re.escape(reason)):
        plain_tensors(value)


def test_tensors_that_share_their_storage_are_stored_apart() -> None:
    whole = torch.arange(8.0)
    taken = plain_tensors({"a": whole[:4], "b": whole[4:], "c": whole.view(2, 4).T})
    assert len({tensor.untyped_storage().data_ptr() for tensor in taken.values()}) == 3
    assert torch.equal(taken["c"], whole.view(2, 4).T)


@pytest.mark.parametrize("data", [b"garbage", b"PK\x03\x04" + b"\0" * 100])
def test_what_is_no_pickle_is_refused(adz: Adz, pickled: Callable[..., Path], data: bytes) -> None:
    directory = pickled({})
    (directory / "adapter_model.bin").write_bytes(data)
    result = adz("import", directory, "--name", "sql", "--convert")
    assert result.code == 3
    assert "adapter_model.bin is refused: " in result.err


def test_a_linked_or_large_pickle_is_not_read(
    adz: Adz, pickled: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = pickled(factors())
    monkeypatch.setattr(pickles, "MAX_PAYLOAD", 100)
    assert "at most 100 are read" in adz("import", directory, "--name", "x", "--convert").err
    (directory / "adapter_model.bin").rename(tmp_path / "elsewhere")
    (directory / "adapter_model.bin").symlink_to(tmp_path / "elsewhere")
    assert "not a plain file" in adz("import", directory, "--name", "x", "--convert").err


def test_without_torch_it_says_what_to_install(
    adz: Adz, pickled: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = pickled(factors())
    found = importlib.util.find_spec
    monkeypatch.setattr(pickles, "find_spec", lambda name: None if name == "torch" else found(name))
    result = adz("import", directory, "--name", "sql", "--convert")
    assert result.code == 1
    assert "pip install 'adapterhub[train]'" in result.err


Done = subprocess.CompletedProcess[str]


def confined(code: str, *, seconds: int = 5, memory: int = 2**28) -> Done:
    """Run code in a process that has given up its rights."""
    program = (
        "import errno, os, socket, signal, sys\n"
        "from adapterhub.imports.confine import confine\n"
        f"assert confine(memory={memory}, seconds={seconds}, written=1000)\n{code}\n"
        "print('done')"
    )
    return subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "code",
    [
        "os.execv('/bin/true', ['true'])",
        "os.fork()",
        "os.posix_spawn('/bin/true', ['true'], {{}})",
        "socket.socket()",
        "socket.socketpair()",
        "open('{path}', 'w')",
        "open('{path}', 'a')",
        "os.open('{path}', os.O_RDWR | os.O_CREAT)",
        "os.unlink('{victim}')",
        "os.rename('{victim}', '{path}')",
        "os.truncate('{victim}', 0)",
        "os.chmod('{victim}', 0)",
        "os.symlink('{victim}', '{path}')",
        "os.link('{victim}', '{path}')",
        "os.mkdir('{path}')",
        "os.kill(os.getppid(), signal.SIGTERM)",
    ],
)
def test_a_confined_process_changes_nothing(code: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("whole")
    done = confined(code.format(path=tmp_path / "new", victim=victim))
    assert done.returncode == 1, done
    assert "PermissionError" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]
    assert victim.read_text() == "whole"


def test_a_confined_process_still_reads(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("text")
    done = confined(f"assert open({str(tmp_path / 'x')!r}).read() == 'text'")
    assert done.stdout == "done\n", done.stderr


def test_a_confined_process_is_bounded(tmp_path: Path) -> None:
    assert "MemoryError" in confined("bytearray(2**30)").stderr
    stopped = confined("while True: pass", seconds=1).returncode
    assert -stopped in (signal.SIGXCPU, signal.SIGKILL)
    assert "refused" in confined("os.system('true') and sys.exit('refused')").stderr
