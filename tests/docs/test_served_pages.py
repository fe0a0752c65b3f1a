"""The pages about the registry and about serving show what their commands print."""

from __future__ import annotations

import re

import pytest
from run_page import run_page

from ..free_ports import free_ports
from .page_output import SERVED, squeezed, without_digests


def with_free_ports(text):
    """The page on other ports than its own, which may be taken; and which stands for which."""
    own = sorted(set(re.findall(r"--port (\d+)", text)))
    free = [str(port) for port in free_ports(len(own))]
    return renamed(text, dict(zip(own, free, strict=True))), dict(zip(free, own, strict=True))


def renamed(text, ports):
    for old, new in ports.items():
        text = re.sub(rf"\b{old}\b", new, text)
    return text


def stable(text):
    """Without fractions, sizes, speeds, times and processes, who ran it, digests and keys, and
    which of several almost equal modules comes first."""
    text = re.sub(r"\badz_[\w-]{43}", "KEY", text)
    text = re.sub(r"^(date|retry-after): .*", r"\1: N", text, flags=re.MULTILINE)
    text = re.sub(r"\(_ssl\.c:\d+\)", "(_ssl.c)", text)
    text = re.sub(r"\b[0-9a-f]{12,64}\b", "HEX", without_digests(text))
    text = re.sub(r"^(YYYY-MM-DD hh:mm:ss +)\S+", r"\1WHO", text, flags=re.MULTILINE)
    text = re.sub(r"(hh:mm:ss)\.\d+", r"\1", text)
    text = re.sub(r"(\d+(\.\d+)?|N) (tokens/s|ms|s)\b", r"N SPEED", text)
    text = re.sub(r"\d+(\.\d+)? ([kMGT]?B)\b", "N BYTES", text)
    text = re.sub(r"( transformers +)\d+( +)\w+( +ready)", r"\1PID\2UP\3", text)
    text = re.sub(r"[+-]?\d+(\.\d+)+", "N", text)
    text = re.sub(r"^  model\.layers\.\S+", "  MODULE", text, flags=re.MULTILINE)
    return squeezed(text)


@pytest.mark.parametrize("page", SERVED, ids=lambda page: page.stem)
def test_the_page_shows_what_its_commands_print(page, programs, tmp_path):
    text = page.read_text(encoding="utf-8")
    copy = tmp_path / page.name
    moved, back = with_free_ports(text)
    copy.write_text(moved, encoding="utf-8")
    assert stable(renamed(run_page(copy, programs), back)) == stable(text)


def test_nothing_but_what_differs_between_runs_is_left_out():
    line = "american@1  200  14 of 14 modules, cosine +0.986, 134.6 kB, 3.7 s; exit code 3"
    assert stable(line) == [
        "american@1 200 14 of 14 modules, cosine N, N BYTES, N SPEED; exit code 3"
    ]
    assert stable("both@1  sha256:" + "0a" * 32) == ["both@1 sha256:N"]
    assert renamed("127.0.0.1:8017 18017", {"8017": "45001"}) == "127.0.0.1:45001 18017"
