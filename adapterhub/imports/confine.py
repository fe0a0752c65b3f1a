"""Taking rights away from this process, for good: what reads a stranger's file needs few.

Limits on memory, time and files hold everywhere. The system calls that open files for writing,
run programs, reach a network or look at other processes are refused by a seccomp filter, on
Linux on x86-64 and ARM64.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import resource
import struct
from pathlib import Path

# <linux/audit.h>, and the numbers of system calls: (x86-64, ARM64), -1 where there is none.
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_REFUSED = {
    "execve": (59, 221), "execveat": (322, 281), "fork": (57, -1), "vfork": (58, -1),
    "clone": (56, 220), "clone3": (435, 435), "ptrace": (101, 117),
    "process_vm_writev": (311, 271), "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "open": (2, -1), "creat": (85, -1), "openat2": (437, 437), "truncate": (76, 45),
    "unlink": (87, -1), "unlinkat": (263, 35), "rmdir": (84, -1), "mkdir": (83, -1),
    "mkdirat": (258, 34), "rename": (82, -1), "renameat": (264, 38), "renameat2": (316, 276),
    "link": (86, -1), "linkat": (265, 37), "symlink": (88, -1), "symlinkat": (266, 36),
    "chmod": (90, -1), "fchmodat": (268, 53), "chown": (92, -1), "fchownat": (260, 54),
    "mknod": (133, -1), "mknodat": (259, 33), "mount": (165, 40), "io_uring_setup": (425, 425),
}  # fmt: skip
_OPENAT = (257, 56)
# O_WRONLY, O_RDWR, O_CREAT, O_TRUNC: the same on both.
_WRITES = 0o1 | 0o2 | 0o100 | 0o1000

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000
_NUMBER, _ARCHITECTURE, _THIRD_ARGUMENT = 0, 4, 32
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


def confine(memory: int, seconds: int, written: int) -> bool:
    """Give up the rights of this process.

    memory: bytes that it may take beyond what it has. seconds: of processor time. written: the
    bytes that a file may have. Returns whether system calls are refused too.
    """
    has = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (has * resource.getpagesize() + memory,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_FSIZE, (written, written))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return _refuse_calls()


def _refuse_calls() -> bool:
    found = _ARCHITECTURES.get(platform.machine())
    libc = ctypes.CDLL(None, use_errno=True)
    if found is None or libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    program = _program(*found)
    code = ctypes.create_string_buffer(b"".join(program), 8 * len(program))
    # struct sock_fprog: a count and a pointer.
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    return int(libc.prctl(_SECCOMP, _FILTER, ctypes.create_string_buffer(header), 0, 0)) == 0


def _program(column: int, architecture: int) -> list[bytes]:
    """The filter in the kernel's packet-filter language."""
    refuse = _step(_RETURN, _ERRNO | errno.EPERM)
    allow = _step(_RETURN, _ALLOW)
    numbers = [numbers[column] for numbers in _REFUSED.values() if numbers[column] >= 0]
    # Another instruction set has other numbers: nothing of it is allowed.
    program = [_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, architecture, 1, 0), refuse]
    program.append(_step(_LOAD, _NUMBER))
    for number in numbers:
        program += [_step(_EQUAL, number, 0, 1), refuse]
    program += [_step(_EQUAL, _OPENAT[column], 0, 3), _step(_LOAD, _THIRD_ARGUMENT)]
    return [*program, _step(_ANY_BIT, _WRITES, 0, 1), refuse, allow]


def _step(code: int, value: int, when: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("HBBI", code, when, otherwise, value)
