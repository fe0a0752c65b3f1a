"""One SSH connection, and a few SFTP sessions over it.

Whom it talks to is what `ssh` would: `~/.ssh/config` for user, port, host name and key files, the
agent and the usual keys, and `~/.ssh/known_hosts`. A host that is not known there is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import paramiko

from adapterhub import AdzError
from adapterhub.errors import usage_error

_SECONDS = 20.0
_SESSIONS = 4
"""OpenSSH allows ten to a connection."""


class Connection:
    """Opened at first use, and again after it was lost. Used from several threads.

    root: the folder of the URL; `/~/` begins in the user's home.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            self._host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise usage_error(f"{url}: {error}", "write sftp://host:22/path") from error
        if parts.password is not None:
            host = parts.netloc.rpartition("@")[2]
            raise usage_error(
                f"{urlunsplit(parts._replace(netloc=host))} was given with a password",
                "SSH keys are used, as ssh does",
            )
        path = unquote(parts.path).rstrip("/")
        if not self._host or not path:
            raise usage_error(f"{url} names no host or no folder", "write sftp://host/path")
        self.url = url.rstrip("/")
        self.root = "./" + path[3:] if path.startswith("/~/") else path
        self._given = {"port": port, "username": parts.username}
        self._client: paramiko.SSHClient | None = None
        self._idle: list[paramiko.SFTPClient] = []
        self._lock = Lock()
        self._places = BoundedSemaphore(_SESSIONS)

    @contextmanager
    def session(self) -> Iterator[paramiko.SFTPClient]:
        """A session that no other thread has. One that broke is not used again."""
        with self._places:
            with self._lock:
                session = self._idle_session() or self._new_session()
            try:
                yield session
            except (EOFError, paramiko.SSHException, GeneratorExit):
                # What was asked for and has not come would be taken for the next answer.
                session.close()
                raise
            finally:
                self._idle.append(session)

    def _idle_session(self) -> paramiko.SFTPClient | None:
        while self._idle:
            session = self._idle.pop()
            channel = session.get_channel()
            if channel and not channel.closed and channel.get_transport().is_active():
                return session
        return None

    def _new_session(self) -> paramiko.SFTPClient:
        transport = self._client.get_transport() if self._client else None
        if self._client is not None and transport is not None and transport.is_active():
            # One that broke just now still counts as active.
            with suppress(EOFError, OSError, paramiko.SSHException):
                return self._client.open_sftp()
        self._client = self._connect()
        return self._client.open_sftp()

    def _connect(self) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        client.load_system_host_keys()
        settings = _configured(self._host)
        settings.update({name: value for name, value in self._given.items() if value})
        try:
            client.connect(
                timeout=_SECONDS, banner_timeout=_SECONDS, auth_timeout=_SECONDS, **settings
            )
        except paramiko.SSHException as error:
            keys = isinstance(error, paramiko.AuthenticationException) or "auth" in str(error)
            what = "the server takes none of your keys" if keys else error
            raise AdzError(f"{self.url}: {what}", f"connect once: ssh {self._host}") from error
        except OSError as error:
            reason = error.strerror or error
            raise AdzError(f"{self.url} does not answer: {reason}", "check the address") from error
        return client


def _configured(host: str) -> dict[str, Any]:
    """What `~/.ssh/config` says of a host."""
    file = Path.home() / ".ssh" / "config"
    config = paramiko.SSHConfig()
    if file.is_file():
        with file.open(encoding="utf-8") as opened:
            config.parse(opened)
    found = config.lookup(host)
    return {
        "hostname": found.get("hostname", host),
        "port": int(found.get("port", 22)),
        "username": found.get("user"),
        "key_filename": found.get("identityfile"),
    }
