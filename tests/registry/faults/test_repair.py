"""`adz fsck --repair` of stored files and views: from copies here and from a remote."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from damages import HOW, damage, flip, weights
from workload import snapshot

from adapterhub.errors import EXIT_OK, EXIT_VERIFICATION, AdzError
from adapterhub_registry.store import LocalRegistry


@pytest.mark.parametrize("how", HOW)
def test_a_file_comes_back_from_a_remote(
    lived_in: LocalRegistry, share: Path, adz: Any, how: str
) -> None:
    path = lived_in.blobs.path(weights(lived_in).sha256)
    before = path.read_bytes()
    damage(path, HOW[how](path))
    for view in lived_in.views.directory.glob("*/adapter_model.safetensors"):
        damage(view, None)
    result = adz("fsck", "--repair")
    assert result.code == EXIT_VERIFICATION
    result = adz("fsck", "--repair", str(share), "--json")
    assert (result.code, json.loads(result.out)["findings"]) == (EXIT_OK, [])
    assert "fetched from file://" in result.out
    assert path.read_bytes() == before
    assert adz("fsck").out == "everything is as it was stored\n"


def test_a_remote_that_lies_heals_nothing(lived_in: LocalRegistry, share: Path, adz: Any) -> None:
    record = weights(lived_in)
    path = lived_in.blobs.path(record.sha256)
    for view in lived_in.views.directory.glob("*/adapter_model.safetensors"):
        damage(view, None)
    there = [f for f in share.rglob("*") if f.is_file() and f.read_bytes() == path.read_bytes()]
    assert there
    for file in there:
        damage(file, flip(file))
    damage(path, None)
    result = adz("fsck", "--repair", str(share))
    assert result.code == EXIT_VERIFICATION
    assert "warning: blob" in result.err
    assert f"blob {record.sha256}: missing" in result.out
    assert not path.exists()


def test_only_the_right_bytes_heal(lived_in: LocalRegistry, tmp_path: Path) -> None:
    record = weights(lived_in)
    other = tmp_path / "other"
    other.write_bytes(b"x" * record.size)
    with pytest.raises(AdzError, match="is not the file") as caught:
        lived_in.heal(record, other)
    assert caught.value.exit_code == EXIT_VERIFICATION
    assert not list(lived_in.check())


def test_other_copies_here_come_first(lived_in: LocalRegistry, adz: Any) -> None:
    version = lived_in.versions()[0]
    lived_in.path(version)
    manifest = lived_in.blobs.path(version.digest)
    file = lived_in.blobs.path(weights(lived_in).sha256)
    before = manifest.read_bytes(), file.read_bytes()
    damage(manifest, flip(manifest))
    damage(file, flip(file))
    result = adz("fsck", "--repair")
    assert (result.code, result.out.count("put back from its other copy here")) == (EXIT_OK, 2)
    assert (manifest.read_bytes(), file.read_bytes()) == before


def test_a_damaged_view_is_made_anew(lived_in: LocalRegistry, adz: Any) -> None:
    version = lived_in.versions()[0]
    file = lived_in.path(version) / "adapter_model.safetensors"
    facts, before = file.stat(), file.read_bytes()
    damage(file, flip(file))
    # A bad disk does not change times.
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert adz("fsck").code == EXIT_VERIFICATION
    result = adz("fsck", "--repair")
    assert (result.code, "it is made anew" in result.out) == (EXIT_OK, True)
    assert (lived_in.path(version) / "adapter_model.safetensors").read_bytes() == before


def test_repairing_what_is_whole_changes_nothing(lived_in: LocalRegistry, adz: Any) -> None:
    before = snapshot(lived_in)
    result = adz("fsck", "--repair")
    assert (result.code, result.out) == (EXIT_OK, "everything is as it was stored\n")
    assert snapshot(lived_in) == before
