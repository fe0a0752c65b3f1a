"""Header reading: equal to safetensors on good files, stricter on bad ones."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from adapterhub.bases.headers import ADAPTER, BASE, DTYPE_BITS, Limits, read_header
from adapterhub.errors import EXIT_VERIFICATION, AdzError

F32 = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def test_reads_what_safetensors_wrote(tmp_path: Path) -> None:
    tensors = {
        "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.array(2.5, dtype=np.float64),
        "empty": np.zeros((0, 4), dtype=np.float16),
        "ints": np.arange(5, dtype=np.int8),
    }
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    header = read_header(path)
    raw = path.read_bytes()
    assert set(header) == set(tensors)
    for name, array in tensors.items():
        info = header[name]
        assert info.shape == array.shape
        assert info.elements == array.size
        assert raw[info.start : info.end] == array.tobytes()


def test_knows_the_dtypes_of_safetensors(write_raw: Callable[..., Path]) -> None:
    for dtype, bits in DTYPE_BITS.items():
        entry = {"dtype": dtype, "shape": [8], "data_offsets": [0, bits]}
        path = write_raw({"t": entry}, b"\0" * bits)
        assert read_header(path)["t"].dtype == dtype
        with safe_open(path, "np") as file:
            assert file.get_slice("t").get_shape() == [8]


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ('{"t": {}, "t": {}}', b"", "the key 't' is there twice"),
        ({"../x": F32}, b"\0" * 4, "the tensor name '../x' has characters beside"),
        ({"x" * 600: F32}, b"\0" * 4, "the tensor name"),
        ({"t": {**F32, "dtype": "PICKLE"}}, b"\0" * 4, "unknown dtype 'PICKLE'"),
        ({"t": {**F32, "dtype": ["F32"]}}, b"\0" * 4, "unknown dtype"),
        ({"t": {**F32, "shape": [2]}}, b"\0" * 4, "F32 [2] does not fill bytes [0, 4]"),
        ({"t": {**F32, "shape": [True]}}, b"\0" * 4, "not natural numbers"),
        ({"t": {**F32, "shape": [1.0]}}, b"\0" * 4, "not natural numbers"),
        ({"t": {**F32, "shape": [-1]}}, b"\0" * 4, "the number -1 is out of range"),
        ({"t": {**F32, "data_offsets": [0]}}, b"\0" * 4, "not natural numbers"),
        ({"t": {**F32, "data_offsets": [4, 0]}}, b"\0" * 4, "does not fill bytes [4, 0]"),
        ({"t": {**F32, "more": 1}}, b"\0" * 4, "not exactly dtype, shape and data_offsets"),
        ({"t": {**F32, "shape": [1] * 5}}, b"\0" * 4, "5 dimensions, at most 4"),
        ({"t": F32}, b"\0" * 2, "it is truncated: "),
        ({"t": F32}, b"\0" * 6, "2 bytes behind its last tensor"),
        ({"t": {**F32, "data_offsets": [2, 6]}}, b"\0" * 6, "begins at byte"),
        ({"t": F32, "u": F32}, b"\0" * 4, "tensor u begins at byte"),
        ({"__metadata__": {"a": 1}}, b"", "metadata is not a mapping of text to text"),
        ({"__metadata__": {"a": "\ud800"}}, b"", "metadata is not Unicode text"),
        ("[]", b"", "its header is not a JSON object"),
        (' {"t": 1}', b"", "its header is not a JSON object"),
        ("{", b"", "it is not JSON at line 1"),
        ('{"t": NaN}', b"", "NaN is not JSON"),
        ('{"t":' + "[" * 200_000, b"", "it is nested too deeply"),
        (b'{"\xff": 1}', b"", "it is not UTF-8 at byte 2"),
        ('{"t": ' + "9" * 30 + "}", b"", "is out of range"),
    ],
)
def test_refuses(write_raw: Callable[..., Path], header: Any, data: bytes, message: str) -> None:
    path = write_raw(header, data)
    with pytest.raises(AdzError) as error:
        read_header(path)
    assert "raw.safetensors is not a valid safetensors file: " in error.value.message
    assert message in error.value.message
    assert error.value.exit_code == EXIT_VERIFICATION


def test_refuses_a_header_that_is_too_long_before_reading_it(
    write_raw: Callable[..., Path],
) -> None:
    with pytest.raises(AdzError, match="claims 8388609 bytes, at most 8388608 are read"):
        read_header(write_raw("{}", length=ADAPTER.size + 1))
    with pytest.raises(AdzError, match="it is truncated: 10 bytes"):
        read_header(write_raw("{}", length=ADAPTER.size))


def test_refuses_more_tensors_than_its_limits(write_raw: Callable[..., Path]) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    path = write_raw({str(i): empty for i in range(4)})
    assert len(read_header(path, Limits(size=1000, tensors=4, dimensions=1))) == 4
    with pytest.raises(AdzError, match="it has 4 tensors, at most 3 are read"):
        read_header(path, Limits(size=1000, tensors=3, dimensions=1))


def test_a_header_that_was_read_before_is_held_against_each_file(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    save_file({"t": np.zeros(4, np.float32)}, first)
    second.write_bytes(first.read_bytes() + b"more")
    read = read_header(first)
    expected = dict(read)
    read.clear()
    assert read_header(first) == expected
    with pytest.raises(AdzError, match=r"second is not a valid .* 4 bytes behind its last tensor"):
        read_header(second)
    second.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(AdzError, match=r"second is not a valid .* it is truncated"):
        read_header(second)


def test_a_base_may_have_more_dimensions_than_an_adapter(write_raw: Callable[..., Path]) -> None:
    path = write_raw({"t": {**F32, "shape": [1] * 5}}, b"\0" * 4)
    assert read_header(path, BASE)["t"].shape == (1,) * 5


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"t": np.arange(4, dtype=np.float32)}, path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(AdzError, match="truncated"):
            read_header(path)


_numbers = st.integers(-2, 40) | st.sampled_from([True, None, 1.0, 2**63, 2**64])
_entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPE_BITS, "F31"]),
        "shape": st.lists(_numbers, max_size=3),
        "data_offsets": st.lists(_numbers, min_size=1, max_size=3),
    }
)
_headers = st.dictionaries(st.sampled_from(["a", "b.c", "__metadata__", "é"]), _entries)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(header=_headers, size=st.integers(0, 64), flips=st.lists(st.integers(0, 2**20), max_size=3))
def test_accepts_nothing_that_safetensors_refuses(
    tmp_path: Path, header: dict[str, Any], size: int, flips: list[int]
) -> None:
    _compare(tmp_path / "fuzz.safetensors", header, size, flips)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    shapes=st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=3),
    flips=st.lists(st.integers(0, 2**20), max_size=2),
)
def test_accepts_no_damaged_file_that_safetensors_refuses(
    tmp_path: Path, shapes: list[list[int]], flips: list[int]
) -> None:
    header, end = {}, 0
    for position, shape in enumerate(shapes):
        start, end = end, end + 4 * int(np.prod(shape))
        header[f"t{position}"] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    if not flips:
        assert _compare(tmp_path / "fuzz.safetensors", header, end, flips)
    else:
        _compare(tmp_path / "fuzz.safetensors", header, end, flips)


def _compare(path: Path, header: dict[str, Any], size: int, flips: list[int]) -> bool:
    raw = json.dumps(header).encode()
    whole = bytearray(struct.pack("<Q", len(raw)) + raw + b"\0" * size)
    for flip in flips:
        whole[flip // 8 % len(whole)] ^= 1 << flip % 8
    path.write_bytes(whole)
    try:
        ours = read_header(path, Limits(size=2**20, tensors=100, dimensions=8))
    except AdzError:
        return False
    try:
        with safe_open(path, "np") as theirs:
            assert set(theirs.keys()) == set(ours)
            for name, info in ours.items():
                assert theirs.get_slice(name).get_shape() == list(info.shape)
    except SafetensorError as error:
        pytest.fail(f"accepted what safetensors refuses ({error}): {bytes(whole)!r}")
    return True
