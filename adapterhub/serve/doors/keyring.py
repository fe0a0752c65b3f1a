"""The keys that open a running server, read again when their file changes."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Sequence
from http import HTTPStatus

from adapterhub.errors import AdzError
from adapterhub.serve.doors.keys import Key, keys_file, read_keys
from adapterhub.serve.errors import RequestError

_log = logging.getLogger("adapterhub.doors")

EVERYBODY = Key(name="everybody", sha256="0" * 64)
"""Who asks a server that needs no key."""


class Keyring:
    """`digests` are the SHA-256 of keys beside the file's, which open everything.

    needed: whether a client needs a key; None: as soon as there is one, and from then on.
    """

    def __init__(self, digests: Sequence[str], needed: bool | None) -> None:
        self._given = [Key(name="api-key", sha256=digest) for digest in digests]
        self.needed = needed is True
        self._follow = needed is not False
        self._stored: list[Key] = []
        self._broken = False
        self._signature: tuple[int, ...] | None = ()

    def find(self, text: bytes | None) -> Key:
        """The key whose text a client sent, or EVERYBODY where none is needed.

        Raises RequestError: 401 for none, a wrong or an expired one, 503 while the file of keys
        cannot be read.
        """
        if self._follow:
            self._read()
        if not self.needed:
            return EVERYBODY
        digest = hashlib.sha256(text or b"").hexdigest()
        found = None
        # All are compared, so that the time does not tell which one was near.
        for key in (*self._given, *self._stored):
            if hmac.compare_digest(key.sha256, digest):
                found = key
        if found is not None and not found.has_expired():
            return found
        if self._broken:
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the keys of this server cannot be read, its log says why",
                None,
            )
        what = "no API key was given" if not text else "the API key is not right"
        if found is not None:
            what = "the API key has expired"
        raise RequestError(HTTPStatus.UNAUTHORIZED, what, None, {"www-authenticate": "Bearer"})

    def _read(self) -> None:
        signature = _signature()
        if signature == self._signature:
            return
        self._signature = signature
        try:
            self._stored, self._broken = read_keys(), False
        except (AdzError, OSError) as error:
            # Nobody enters with a key that may have been taken away.
            self._stored, self._broken = [], True
            _log.warning("%s", error)
        # Removing the last key must not open the server to everybody.
        self.needed = self.needed or bool(self._stored) or self._broken


def _signature() -> tuple[int, ...] | None:
    try:
        found = keys_file().stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
