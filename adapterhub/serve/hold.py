"""What a server has opened, leased from the registry so that `adz gc` leaves its files."""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress

from adapterhub.errors import AdzError
from adapterhub.manifest import Version
from adapterhub.protocols import Registry

_SECONDS = 3600.0
_RETRY_SECONDS = 60.0


class Hold:
    """The leases of one server process: of each version for an hour after its last request at
    the soonest, also when the process is killed. Used from one thread.

    server: the engine's name, for who looks at the leases.
    """

    def __init__(self, server: str) -> None:
        self._holder = f"{server} server, process {os.getpid()}"
        # With the time of the last request, the oldest first.
        self._versions: OrderedDict[str, tuple[Version, float]] = OrderedDict()
        self._renew_at = 0.0

    def add(self, registry: Registry, version: Version) -> None:
        """Hold `version` too; renews the leases where half of their time is over."""
        now = time.monotonic()
        known = version.digest in self._versions
        self._versions[version.digest] = version, now
        self._versions.move_to_end(version.digest)
        if known and now < self._renew_at:
            return
        self._let_go(now - _SECONDS)
        # A full disk or a busy registry must not stop the server, nor slow down every request.
        self._renew_at = now + _RETRY_SECONDS
        with suppress(AdzError):
            registry.lease([v for v, _ in self._versions.values()], self._holder, _SECONDS)
            self._renew_at = now + _SECONDS / 2

    def drop(self, digests: Iterable[str]) -> None:
        """These were removed: their leases end with the next renewal."""
        for digest in digests:
            self._versions.pop(digest, None)

    def _let_go(self, before: float) -> None:
        while self._versions:
            digest, (_, asked) = next(iter(self._versions.items()))
            if asked >= before:
                return
            del self._versions[digest]
