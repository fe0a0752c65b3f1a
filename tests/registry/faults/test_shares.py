"""`adz fsck` of a share of the files, and one that goes on where it broke off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from damages import damage, flip

from adapterhub.errors import EXIT_VERIFICATION
from adapterhub_registry import fsck
from adapterhub_registry.fsck import Extent
from adapterhub_registry.resume import Mark
from adapterhub_registry.store import LocalRegistry


def test_the_shares_are_all_the_files(lived_in: LocalRegistry) -> None:
    digests = {f"sha256:{path.name}" for path in lived_in.blobs.directory.iterdir()}
    shares = [{d for d in digests if Extent(share=(n, 3)).covers(d)} for n in (1, 2, 3)]
    assert set().union(*shares) == digests
    assert sum(map(len, shares)) == len(digests)
    bad = sorted(digests)[0]
    path = lived_in.blobs.path(bad)
    damage(path, flip(path))
    found = [bool(list(lived_in.check(bases=False, share=(n, 3)))) for n in (1, 2, 3)]
    assert found == [bad in share for share in shares]


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "a/b", "1/0", "-1/2"])
def test_a_share_that_means_nothing_is_refused(
    lived_in: LocalRegistry, adz: Any, text: str
) -> None:
    result = adz("fsck", "--subset", text)
    assert (result.code, "is not N/M" in result.err) == (2, True)


def test_a_check_that_broke_off_goes_on(
    lived_in: LocalRegistry, adz: Any, monkeypatch: Any
) -> None:

    hashed: list[str] = []
    real = fsck.hash_file
    blobs = sorted(lived_in.blobs.directory.iterdir())
    damage(blobs[0], flip(blobs[0]))

    def hash_file(path: Path, *rest: Any) -> str:
        if path.parent == lived_in.blobs.directory:
            hashed.append(path.name)
            if len(hashed) == 4:
                raise KeyboardInterrupt
        return real(path, *rest)

    monkeypatch.setattr(fsck, "hash_file", hash_file)
    assert adz("fsck").code == 130
    assert (lived_in.root / "fsck.json").exists()
    hashed[:] = [*hashed[:3], "", ""]
    result = adz("fsck", "--resume")
    # The damaged one is looked at again: the result is that of a whole check.
    assert (result.code, blobs[0].name in result.out) == (EXIT_VERIFICATION, True)
    assert hashed[5:] == [blobs[0].name, *(path.name for path in blobs[3:])]
    assert not (lived_in.root / "fsck.json").exists()
    hashed.clear()
    hashed += [""] * 4
    adz("fsck", "--resume")
    assert len(hashed) == 4 + len(blobs)


def test_a_note_of_another_share_is_not_used(lived_in: LocalRegistry) -> None:
    mark = Mark(lived_in, (1, 2), keep=True)
    mark.passed("sha256:f", damaged=False)
    mark._write()
    assert Mark(lived_in, (1, 2), keep=True).left(["sha256:a"]) == []
    assert Mark(lived_in, (2, 2), keep=True).left(["sha256:a"]) == ["sha256:a"]
