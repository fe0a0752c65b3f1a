"""Headers from strangers: never a crash, a hang or much memory, and nothing is accepted that
safetensors refuses. TEST_FUZZ is the number of inputs."""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import safetensors

from adapterhub.bases.headers import DTYPE_BITS, Limits, read_header
from adapterhub.errors import EXIT_VERIFICATION, AdzError

INPUTS = int(os.environ.get("TEST_FUZZ", "20000"))
# Seconds that one input of at most a few hundred kB may take, on a busy machine.
LONGEST = 2.0
LIMITS = Limits(size=8 * 2**20, tensors=65_536, dimensions=4)

Random = random.Random
Header = dict[str, Any]

NUMBERS = (0, 1, 2, 7, 8, 255, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -1,
           1.0, 0.5, 1e300, True, None, "4", [], {})  # fmt: skip
NAMES = ("", "a", "a.b", "../../x", "a/b", "a\0b", "\ud800", "é", "__metadata__", "a" * 600,
         "weight ", "-", ".", "dtype", "t0")  # fmt: skip


def valid(rng: Random) -> tuple[Header, int]:
    """A header that is right, and the number of bytes behind it."""
    header: Header = {}
    if rng.random() < 0.3:
        header["__metadata__"] = {"format": "pt"}
    end = 0
    for number in range(rng.randrange(5)):
        dtype = rng.choice(sorted(DTYPE_BITS))
        shape = [rng.randrange(5) for _ in range(rng.randrange(5))]
        bits = DTYPE_BITS[dtype]
        for length in shape:
            bits *= length
        if bits % 8:
            dtype, bits = "F32", bits // DTYPE_BITS[dtype] * 32
        start, end = end, end + bits // 8
        header[f"t{number}.weight"] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return header, end


def spoil_entry(rng: Random, header: Header) -> None:
    """Change one tensor's entry."""
    names = [name for name in header if name != "__metadata__"]
    if not names:
        return
    entry = header[rng.choice(names)]
    kind = rng.randrange(8)
    if kind == 0:
        entry["dtype"] = rng.choice([*DTYPE_BITS, "f32", "F128", "", None, 3, ["F32"]])
    elif kind == 1 and entry["shape"]:
        entry["shape"][rng.randrange(len(entry["shape"]))] = rng.choice(NUMBERS)
    elif kind == 2:
        entry["data_offsets"][rng.randrange(2)] = rng.choice(NUMBERS)
    elif kind == 3:
        entry["data_offsets"][rng.randrange(2)] += rng.choice([-8, -1, 1, 4, 8])
    elif kind == 4:
        entry["shape"] = rng.choice([entry["shape"] * 4, [1] * 70, "8", None, {}, [[1]]])
    elif kind == 5:
        entry.pop(rng.choice(sorted(entry)))
    elif kind == 6:
        entry[rng.choice(["extra", "Dtype", "shape "])] = rng.choice(NUMBERS)
    else:
        entry["data_offsets"] = rng.choice([[], [0], [0, 4, 8], [4, 0], None, "0,4"])


def spoil_names(rng: Random, header: Header) -> None:
    """Rename, copy or remove a tensor, or spoil the metadata."""
    names = [name for name in header if name != "__metadata__"]
    kind = rng.randrange(4)
    if kind == 0 and names:
        header[rng.choice(NAMES)] = header.pop(rng.choice(names))
    elif kind == 1 and names:
        header[rng.choice(NAMES)] = header[rng.choice(names)]
    elif kind == 2 and names:
        header.pop(rng.choice(names))
    else:
        header["__metadata__"] = rng.choice(
            [{"a": 1}, {"a": None}, [], "x", None, {"a": "\ud800"}, {"": ""}, {"a": {"b": "c"}}]
        )


def spoil_text(rng: Random, raw: bytes) -> bytes:
    """Change the header's text."""
    place = rng.randrange(len(raw) + 1)
    kind = rng.randrange(9)
    if kind == 0:
        return b" " * rng.randrange(1, 9) + raw
    if kind == 1:
        return raw + rng.choice([b" ", b"\n", b"\0", b"}", b"{}", b" " * 300])
    if kind == 2:
        return b"\xef\xbb\xbf" + raw
    if kind == 3:
        # A key that is there twice.
        return raw[:-1] + b"," + raw[1:] if len(raw) > 2 else raw
    if kind == 4:
        deep = rng.choice([b"[", b'{"a":']) * rng.choice([10, 200, 5000])
        return raw[:place] + deep + raw[place:]
    if kind == 5:
        return raw.replace(b"[", b"[" + rng.choice([b"NaN,", b"1e5,", b"01,", b"-0,", b"+1,"]), 1)
    if kind == 6:
        return raw[:place]
    if kind == 7:
        return raw[:place] + bytes([rng.randrange(256)]) + raw[place:]
    return raw.replace(b'"', rng.choice([b"'", b'\\"', b'""']), 1)


def make_input(rng: Random) -> bytes:
    """The bytes of a file: right, nearly right, or anything."""
    if rng.random() < 0.05:
        return rng.randbytes(rng.randrange(200))
    header, size = valid(rng)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
        # What was spoilt before may lack what is to be spoilt now.
        with suppress(KeyError, TypeError, IndexError):
            rng.choice([spoil_entry, spoil_names])(rng, header)
    # A lone surrogate is a text that JSON can hold and UTF-8 cannot.
    raw = json.dumps(header).encode()
    if rng.random() < 0.25:
        raw = spoil_text(rng, raw)
    length = len(raw)
    if rng.random() < 0.1:
        length = rng.choice([0, 1, length - 1, length + 1, length + size, 2**20, 2**63, 2**64 - 1])
    body = bytes(max(0, size + (rng.choice([-1, 1, 8]) if rng.random() < 0.05 else 0)))
    whole = bytearray(struct.pack("<Q", length % 2**64) + raw + body)
    if rng.random() < 0.1:
        for _ in range(rng.randrange(1, 4)):
            whole[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
    return bytes(whole)


def compare(path: Path, data: bytes) -> str:
    """Read one input both ways; what came of it, for the count."""
    path.write_bytes(data)
    refusal = None
    try:
        ours = read_header(path, LIMITS)
    except AdzError as error:
        refusal = error
    if refusal is not None:
        assert refusal.exit_code == EXIT_VERIFICATION
        assert "\n" not in str(refusal)
        assert len(str(refusal)) < 1000
        return "refused"
    theirs = dict(safetensors.deserialize(data))
    assert set(theirs) == set(ours)
    for name, info in ours.items():
        assert theirs[name]["shape"] == list(info.shape)
        assert theirs[name]["dtype"] == info.dtype
        assert bytes(theirs[name]["data"]) == data[info.start : info.end]
    return "accepted"


def test_nothing_is_accepted_that_safetensors_refuses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = random.Random(0)
    # A file in memory: a million inputs are no test of the disk.
    file = os.memfd_create("x.safetensors")
    path = Path(f"/proc/self/fd/{file}")
    seen: Counter[str] = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    slowest = 0.0
    for number in range(INPUTS):
        data = make_input(rng)
        start = time.perf_counter()
        try:
            seen[compare(path, data)] += 1
        except Exception as error:
            raise AssertionError(f"input {number}: {data[:2000]!r}") from error
        slowest = max(slowest, time.perf_counter() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    with capsys.disabled():
        print(f"\n{INPUTS} headers: {dict(seen)}, slowest {slowest * 1e3:.1f} ms, {grown} kB more")
    os.close(file)
    # Both ways out are taken often, or the comparison says little.
    assert min(seen["accepted"], seen["refused"]) > INPUTS / 10
    assert slowest < LONGEST
    assert grown < 200_000


def test_a_shape_that_overflows_before_its_zero_is_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [2**63, 4, 0], "data_offsets": [0, 0]}
    raw = json.dumps({"t": entry}).encode()
    data = struct.pack("<Q", len(raw)) + raw
    path = tmp_path / "x.safetensors"
    assert compare(path, data) == "refused"
    with pytest.raises(safetensors.SafetensorError):
        safetensors.deserialize(data)


def many_tensors(count: int) -> bytes:
    return json.dumps(
        {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(count)}
    ).encode()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: many_tensors(65_537), "it has 65537 tensors, at most 65536 are read"),
        (lambda: b"{" + b" " * (8 * 2**20), "its header claims 8388609 bytes, at most 8388608"),
        (lambda: b'{"a":' * 1_000_000, "its header: it is nested too deeply"),
        (lambda: b'{"a": ' + b"9" * 4_000_000 + b"}", "its header: the number 9999"),
        (lambda: b'{"a": "' + b"\\u0000" * 1_000_000 + b'"}', "tensor a: not exactly"),
    ],
)
def test_a_bomb_costs_little(tmp_path: Path, make: Callable[[], bytes], message: str) -> None:
    path = tmp_path / "x.safetensors"
    raw = make()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with pytest.raises(AdzError) as error:
        read_header(path)
    assert message in str(error.value)
    assert len(str(error.value)) < 1000
    assert time.perf_counter() - start < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000
