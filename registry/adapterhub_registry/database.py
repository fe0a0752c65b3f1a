"""The SQLite file: connections, the schema, and the one place where a change is committed.

Every change is a list of `Event`s. They are applied to the tables and appended to the journal
inside one write transaction; SQLite's commit is what makes them true. A missing database is
rebuilt by applying the journal's events to an empty one, so both ways give the same tables.
"""

from __future__ import annotations

import getpass
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub_registry import disk, tables
from adapterhub_registry.journal import Event, Journal

SCHEMA_VERSION = 4

# The disk's or the user's rights' fault, and not the file's.
_NO_ROOM = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)
_UNUSABLE = (
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
)  # fmt: skip

_INHERITED: list[sqlite3.Connection] = []


def utc_now() -> str:
    """The time as every record of the registry writes it: UTC, ISO 8601, milliseconds."""
    return utc_text(datetime.now(UTC).timestamp())


def utc_text(timestamp: float) -> str:
    """Seconds since 1970 as text; texts sort like the times."""
    moment = datetime.fromtimestamp(timestamp, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Change:
    """A write transaction. What is read through `connection` cannot change until it ends."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.time = utc_now()
        self.events: list[Event] = []
        self._seq: int = connection.execute("SELECT ifnull(max(seq), 0) FROM events").fetchone()[0]

    def record(
        self,
        action: str,
        name: str,
        *,
        version: int | None = None,
        alias: str | None = None,
        previous: int | None = None,
        body: dict[str, Any] | None = None,
        manifest: bytes | None = None,
    ) -> None:
        """Apply one event; `manifest` is the stored manifest of a commit."""
        event = Event(
            seq=self._seq + len(self.events) + 1,
            time=self.time,
            actor=actor(),
            action=action,
            name=name,
            version=version,
            alias=alias,
            previous=previous,
            body=body or {},
        )
        tables.apply(self.connection, event, manifest)
        self.events.append(event)


class Database:
    """`registry.sqlite3` and its journal. One connection a thread.

    read_manifest: digest -> a manifest's stored bytes or None, for a rebuild.
    busy_seconds: how long to wait for another process that writes.
    """

    def __init__(
        self,
        directory: Path,
        read_manifest: Callable[[str], bytes | None],
        busy_seconds: float,
    ) -> None:
        self.path = directory / "registry.sqlite3"
        self.journal = Journal(directory / "names.jsonl")
        self._read_manifest = read_manifest
        self._busy_seconds = busy_seconds
        self._local = threading.local()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection for queries; SQLite's errors become one clear line."""
        with _clear_errors(self.path), self._using():
            yield self._connection()

    @contextmanager
    def changing(self) -> Iterator[Change]:
        """A write transaction: all of its events happen, or none."""
        with _clear_errors(self.path), self._using():
            connection = self._begin()
            size = self.journal.size()
            try:
                change = Change(connection)
                yield change
                if change.events:
                    self.journal.append(change.events)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    # While nobody else can write. Where even this fails, a killed process could
                    # have left the same.
                    with suppress(OSError):
                        self.journal.cut(size)
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Nobody writes for the length of the block. A damaged database, to which nobody can, is
        let be."""
        with self._using():
            try:
                with _clear_errors(self.path):
                    connection: sqlite3.Connection | None = self._begin()
            except AdzError as error:
                if error.exit_code != EXIT_VERIFICATION:
                    raise
                connection = None
            try:
                yield
            finally:
                if connection is not None and connection.in_transaction:
                    with suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")

    def _begin(self) -> sqlite3.Connection:
        connection = self._connection()
        connection.execute("BEGIN IMMEDIATE")
        while self._local.key[1] != _inode(self.path):
            # It was replaced while this waited for its lock.
            connection.execute("ROLLBACK")
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
        return connection

    def _connection(self) -> sqlite3.Connection:
        # A connection may not be carried over a fork, nor used for a file that was replaced.
        key = (os.getpid(), _inode(self.path))
        known = getattr(self._local, "key", None)
        if known and known[0] != key[0]:
            # Closing it here would reach into the files of the process that we were forked from.
            _INHERITED.append(self._local.connection)
        if known != key or key[1] is None:
            self._local.connection = self._open()
            self._local.key = (os.getpid(), _inode(self.path))
        connection: sqlite3.Connection = self._local.connection
        return connection

    @contextmanager
    def _using(self) -> Iterator[None]:
        """A connection that keeps others out is closed as soon as nobody here uses it."""
        self._local.users = getattr(self._local, "users", 0) + 1
        try:
            yield
        finally:
            self._local.users -= 1
            if self._local.users == 0 and getattr(self._local, "alone", False):
                self._local.connection.close()
                self._local.key, self._local.alone = None, False

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in _NO_ROOM:
                raise
        # SQLite shares its index of the log in a file. On a full disk there is no room for one,
        # and it does without when nobody else may use the database.
        connection = self._connect("PRAGMA locking_mode = EXCLUSIVE")
        self._local.alone = True
        return connection

    def _connect(self, *pragmas: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in pragmas:
                connection.execute(pragma)
            # SQLite does not wait for its lock while a database becomes one with a log.
            with disk.lock(self.path.parent):
                self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        version = _schema_version(connection)
        if version == 0:
            connection.execute("PRAGMA journal_mode = WAL")
        if version < SCHEMA_VERSION:
            self._make_tables(connection)
        elif version > SCHEMA_VERSION:
            raise AdzError(
                f"the registry {self.path.parent} was made by a newer adapterhub: "
                f"its schema is {version}, this one knows {SCHEMA_VERSION}",
                "upgrade adapterhub, or set another ADZ_HOME",
            )

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        """Fill the tables of this schema with what the journal, or older tables, tell."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = _schema_version(connection)
            if version == 0:
                self._require_journal()
                tables.create(connection, self.journal.read(), self._read_manifest)
            elif version < SCHEMA_VERSION:
                tables.migrate(connection, version)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _require_journal(self) -> None:
        """An empty registry in place of a lost one would let `adz gc` delete its files."""
        if self.journal.path.exists():
            return
        files = self.path.parent / "blobs" / "sha256"
        if files.is_dir() and any(files.iterdir()):
            raise AdzError(
                f"{self.path.parent} has files, but {self.path.name} and names.jsonl are both gone",
                "'adz fsck --repair' finds the versions again; aliases and bases are lost",
                exit_code=EXIT_VERIFICATION,
            )
        self.journal.create()


def _schema_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def actor() -> str:
    """Who makes a change, as the history records it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a number that has no name.
        return str(os.getuid())


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        # What Python itself raises, such as for text that is not UTF-8, has no code.
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise AdzError(
                f"the registry {path.parent} is busy: another process is writing",
                "try again when it is done",
            ) from error
        if code == sqlite3.SQLITE_FULL:
            raise AdzError(f"no space left on device: {path}", "nothing was changed") from error
        if code in _UNUSABLE:
            raise AdzError(
                f"the registry {path} cannot be used: {error}",
                "is the disk full, or ADZ_HOME not writable? 'adz doctor' shows both",
            ) from error
        raise AdzError(
            f"the registry's database {path} is damaged: {error}",
            "'adz fsck --repair' makes it anew from names.jsonl",
            exit_code=EXIT_VERIFICATION,
        ) from error
