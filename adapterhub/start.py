"""Where the command `adz` begins: before anything that takes time is imported."""

from __future__ import annotations

import sys


def main() -> int:
    """Run `adz`; Ctrl-C ends it in one line, also while the command line is being imported."""
    try:
        from adapterhub.cli import main as run

        return run()
    except KeyboardInterrupt:
        pass
    except RuntimeError as error:
        # Python 3.11 wraps what ends the making of a class.
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
    # 130 is `errors.EXIT_INTERRUPTED`, which may not be importable any more.
    sys.stderr.write("adz: interrupted\n")
    return 130
