"""`python -m adapterhub.derived.child`: makes versions in a process that harms no server.

Each line on stdin is a JSON object that says what; a line on stdout answers,
`{"reference": ...}` or `{"refused": ...}`. It ends with its input.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

_NICENESS = 10
_PR_SET_PDEATHSIG = 1
# The kernel ends this process before any other of the server's when memory runs out.
_FIRST_TO_GO = "1000"


def main() -> None:
    """Read, make, answer."""
    _step_back()
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # What libraries print must not come between.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        answers.write(json.dumps(_answer(json.loads(line))) + "\n")
        answers.flush()


def _answer(asked: dict[str, Any]) -> dict[str, str]:
    from adapterhub.derived.build import make
    from adapterhub.derived.wanted import Wanted
    from adapterhub.errors import AdzError
    from adapterhub.merge.silent import Silent
    from adapterhub.plugins import open_registry
    from adapterhub.protocols import Derivations

    wanted = Wanted(**asked["wanted"])
    settings = Derivations(**asked["settings"])
    try:
        version = make(wanted, open_registry(), settings, Silent(), used=asked["used"])
    except AdzError as error:
        return {"refused": str(error)}
    return {"reference": version.reference}


def _step_back() -> None:
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main()
