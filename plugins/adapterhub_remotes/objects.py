"""The files of a remote in a bucket, or in any other file system that fsspec opens."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from adapterhub.errors import AdzError, usage_error
from adapterhub.protocols import TransferInterruptedError

_CHUNK = 4 * 2**20
_INSTALL = {
    "s3": "pip install 'adapterhub[s3]'",
    "gs": "pip install gcsfs",
    "az": "pip install adlfs",
}
_SECRETS = re.compile(r"//[^/@\s]+@|(?<=[?&])[^=\s&]+=[^&\s]+")
_NOT_IMPLEMENTED = re.compile("not ?implemented", re.IGNORECASE)


class Objects:
    """A `file_store.FileStore` over fsspec, which takes endpoints and credentials from the
    environment and its own configuration (`AWS_ENDPOINT_URL`, `~/.aws`, `FSSPEC_S3_...`). The URL
    may hold none."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if "@" in parts.netloc:
            raise usage_error(
                f"{urlunsplit(parts._replace(netloc=parts.netloc.rpartition('@')[2]))} was given "
                "with credentials",
                "set them in the environment",
            )
        self.url = url.rstrip("/")
        import fsspec

        with self._clear_errors("opened"):
            try:
                self._system, root = fsspec.core.url_to_fs(
                    self.url, use_listings_cache=False, skip_instance_cache=True
                )
            except ImportError as error:
                hint = _INSTALL.get(parts.scheme, "install what fsspec needs for it")
                raise AdzError(f"{self.url} cannot be opened: {error}", hint) from error
            self._root = root.rstrip("/")

    def size(self, path: str) -> int | None:
        """See `file_store.FileStore`."""
        with self._clear_errors("read"):
            try:
                size: int = self._system.info(self._full(path), refresh=True)["size"]
            except FileNotFoundError:
                return None
        return size

    def get(self, path: str, limit: int) -> bytes | None:
        """See `file_store.FileStore`."""
        with self._clear_errors("read"):
            try:
                data: bytes = self._system.cat_file(self._full(path), start=0, end=limit)
            except FileNotFoundError:
                return None
        return data

    def read(self, path: str, offset: int) -> Iterator[bytes]:
        """See `file_store.FileStore`."""
        size = self.size(path)
        if size is None:
            raise AdzError(f"{self.url} lacks {path}", "push the version again")
        for start in range(offset, size, _CHUNK):
            end = min(start + _CHUNK, size)
            with self._clear_errors("read", TransferInterruptedError):
                data: bytes = self._system.cat_file(self._full(path), start=start, end=end)
            yield data

    def put(self, path: str, data: bytes, *, new: bool = False) -> bool:
        """See `file_store.FileStore`."""
        full = self._full(path)
        with self._clear_errors("written"):
            if not new:
                self._system.pipe_file(full, data)
                return True
            if self.size(path) is not None:
                return False
            try:
                self._system.pipe_file(full, data, mode="create")
            except FileExistsError:
                return False
            except (TypeError, OSError) as error:
                # This file system, or this server, cannot write only where nothing is.
                if isinstance(error, OSError) and not _NOT_IMPLEMENTED.search(str(error)):
                    raise
                self._system.pipe_file(full, data)
            return True

    def upload(self, path: str, source: Path, sent: Callable[[int], None]) -> None:
        """See `file_store.FileStore`."""
        from fsspec.callbacks import Callback

        class Sent(Callback):  # type: ignore[misc]
            def relative_update(self, inc: int = 1) -> None:
                sent(inc)

        with self._clear_errors("written"):
            self._system.put_file(str(source), self._full(path), callback=Sent())

    def below(self, folder: str) -> Iterator[str]:
        """See `file_store.FileStore`."""
        with self._clear_errors("listed"):
            self._system.invalidate_cache()
            found = self._system.find(self._full(folder))
        for path in found:
            yield str(path).removeprefix(self._root).lstrip("/")

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}"

    @contextmanager
    def _clear_errors(self, done: str, kind: type[AdzError] = AdzError) -> Iterator[None]:
        # Each file system of fsspec raises errors of its own, also beside OSError.
        try:
            yield
        except AdzError:
            raise
        except Exception as error:
            raise kind(
                f"{self.url} cannot be {done}: {_one_line(error)}",
                "check the address and the credentials in the environment",
            ) from error


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return _SECRETS.sub("", text)[:300]
