"""A disk that is full: how it is recognised."""

from __future__ import annotations

import errno

_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors has an exception of its own, with the system's words in it.
_WORDS = ("No space left on device", "File too large", "Disk quota exceeded")


def is_full_disk(error: BaseException) -> bool:
    """Whether writing failed for want of space, whatever library wrote."""
    if isinstance(error, OSError) and error.errno in _ERRORS:
        return True
    return any(word in str(error) for word in _WORDS)
