"""The home that every part of `Hub` works on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapterhub.home import adz_home
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Progress, Registry


class Home:
    """See `adapterhub.hub.Hub`."""

    def __init__(self, home: Path | str | None = None, *, progress: Progress | None = None) -> None:
        self.home = adz_home() if home is None else Path(home).expanduser().absolute()
        self._progress: Progress = progress or Quiet()

    @contextmanager
    def _registry(self) -> Iterator[Registry]:
        """The registry, with this hub's home as ADZ_HOME for what the pipelines write beside."""
        from adapterhub.plugins import open_registry

        before = os.environ.get("ADZ_HOME")
        os.environ["ADZ_HOME"] = str(self.home)
        try:
            yield open_registry()
        finally:
            if before is None:
                del os.environ["ADZ_HOME"]
            else:
                os.environ["ADZ_HOME"] = before


class Quiet(Silent):
    """No bars and no notes; warnings as Python's own."""

    def warn(self, message: str) -> None:
        warnings.warn(message, stacklevel=2)
