"""The descriptor, and the engine's own options."""

from __future__ import annotations

import subprocess
import sys

import pytest
from adz_llama_cpp.flags import Flags, read_flags

from adapterhub import AdzError, specs
from adapterhub.plugins import load_plugins
from adapterhub.serve import engines


def test_who_wants_it_names_it():
    assert load_plugins().get(specs.Engine, "llama-cpp").live
    assert engines.find_engine(None).name != "llama-cpp"
    code = "import sys, adz_llama_cpp.plugin; print({'torch', 'llama_cpp'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_without_llama_cpp_one_line_says_what_to_install(adz, tiny_base, monkeypatch):
    monkeypatch.setattr("adapterhub.plugins.is_installed", lambda name: name != "llama_cpp")
    done = adz("serve", "tiny", "--engine", "llama-cpp", "--port", "18999")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "needs llama_cpp (pip install adz-llama-cpp)" in done.err


def test_kind_follows_dtype_unless_it_is_named():
    assert read_flags([], "auto") == Flags("f16", None, 4, 0, 0)
    assert read_flags([], "float32").kind == "f32"
    given = read_flags(["--kind", "q8_0", "--slots", "2", "--threads", "3"], "float32")
    assert given == Flags("q8_0", None, 2, 3, 0)


@pytest.mark.parametrize(
    "words", [["--kind", "q2"], ["--slots", "0"], ["--nothing"], ["--gguf", "/nowhere.gguf"]]
)
def test_what_is_wrong_is_a_usage_error(words):
    with pytest.raises(AdzError, match="llama-cpp: ") as raised:
        read_flags(words, "auto")
    assert raised.value.exit_code == 2


def test_dtype_without_a_kind_is_refused():
    with pytest.raises(AdzError, match="--dtype int8 is none of"):
        read_flags([], "int8")
