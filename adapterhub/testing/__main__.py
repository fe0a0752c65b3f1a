"""`python -m adapterhub.testing`: something to try a plugin on, in ADZ_HOME."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import transformers

from adapterhub import AdzError, Hub
from adapterhub.home import adz_home
from adapterhub.testing import write_tiny_base
from adapterhub.testing.adapters import commit_tiny_adapters


def main() -> int:
    """Add the random base `tiny` and three LoRA adapters of it, `tiny-a`, `tiny-b`, `tiny-c`."""
    # Three lines say what was made.
    transformers.utils.logging.disable_progress_bar()
    try:
        base = Hub().add_base("tiny", str(write_tiny_base(adz_home() / "tiny")))
        with tempfile.TemporaryDirectory() as folder:
            made = commit_tiny_adapters(base, Path(folder))
    except AdzError as error:
        print(f"adapterhub.testing: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join([base.name, *(version.reference for version in made)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
