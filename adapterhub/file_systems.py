"""What kind of file system a path lies on, as the kernel says."""

from __future__ import annotations

import re
from pathlib import Path

_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "davfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs",
    "nfs", "nfs4", "ocfs2", "orangefs", "pvfs2", "smb3", "smbfs", "fuse.ceph", "fuse.ceph-fuse",
    "fuse.davfs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs", "fuse.mfs", "fuse.rclone",
    "fuse.s3fs", "fuse.seaweedfs", "fuse.sshfs",
})  # fmt: skip


def network_file_system(path: Path) -> str | None:
    """The type of the network file system that `path` lies on, such as `nfs4`, or None.

    `path` need not exist yet. Where the kernel does not say, the answer is None.
    """
    kind = _kind_of(path.resolve())
    return kind if kind in _NETWORK else None


def _kind_of(path: Path) -> str | None:
    try:
        lines = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    found, depth = None, -1
    for line in lines:
        mount, _, described = line.partition(" - ")
        point = Path(_unescape(mount.split(" ")[4]))
        # A later mount at the same place covers the earlier one.
        if path.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = described.split(" ")[0], len(point.parts)
    return found


def _unescape(text: str) -> str:
    """Spaces, tabs, line breaks and backslashes stand there in octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
