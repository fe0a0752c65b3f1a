"""What a server has opened, leased from the registry so that `adz gc` leaves its files."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from adapterhub.errors import AdzError
from adapterhub.manifest import Version
from adapterhub.protocols import Registry

_SECONDS = 3600.0
_RETRY_SECONDS = 60.0


class Hold:
    """The leases of one server process. They run out an hour after its last request at the
    soonest, also when the process is killed. Used from one thread.

    server: the engine's name, for who looks at the leases.
    """

    def __init__(self, server: str) -> None:
        self._holder = f"{server} server, process {os.getpid()}"
        self._versions: dict[str, Version] = {}
        self._renew_at = 0.0

    def add(self, registry: Registry, version: Version) -> None:
        """Hold `version` too; renews the leases where half of their time is over."""
        now = time.monotonic()
        if version.digest in self._versions and now < self._renew_at:
            return
        self._versions[version.digest] = version
        # A full disk or a busy registry must not stop the server, nor slow down every request.
        self._renew_at = now + _RETRY_SECONDS
        with suppress(AdzError):
            registry.lease(list(self._versions.values()), self._holder, _SECONDS)
            self._renew_at = now + _SECONDS / 2
