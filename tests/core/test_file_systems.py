"""Network file systems are told apart from local ones by the kernel's table of mounts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from adapterhub import file_systems
from adapterhub.file_systems import network_file_system

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / {0}/home rw,relatime shared:2 master:3 - nfs4 server:/home rw,vers=4.2
31 30 0:41 / {0}/home/local rw - tmpfs tmpfs rw
32 22 0:42 / {0}/with\\040space\\134 rw - fuse.sshfs someone@host: rw
33 22 0:43 / {0}/covered rw - cifs //server/share rw
34 22 8:2 / {0}/covered rw - xfs /dev/sdb1 rw
35 22 0:44 /sub {0}/bound rw - lustre mgs@tcp:/fs rw
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("home/me/adz", "nfs4"),
        ("home", "nfs4"),
        ("homes/me", None),
        ("home/local/adz", None),
        ("with space\\/adz", "fuse.sshfs"),
        ("covered/adz", None),
        ("bound/adz", "lustre"),
        ("elsewhere", None),
        ("link/adz", "nfs4"),
    ],
)
def test_the_innermost_mount_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, expected: str | None
) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(TABLE.format(tmp_path))
    (tmp_path / "home").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home")
    monkeypatch.setattr(file_systems, "_MOUNTS", table)
    assert network_file_system(tmp_path / path) == expected


def test_without_a_table_nothing_is_claimed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(file_systems, "_MOUNTS", tmp_path / "nothing")
    assert network_file_system(tmp_path) is None


def test_the_table_of_this_machine_can_be_read(tmp_path: Path) -> None:
    assert file_systems._kind_of(Path("/proc/self")) == "proc"
    assert network_file_system(tmp_path) is None
