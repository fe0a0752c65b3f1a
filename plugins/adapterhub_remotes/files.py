"""A remote in a directory (`file:///srv/adapters`), or in a bucket or any other file system that
fsspec opens (`s3://bucket/path`, `gs://`, `az://`, `memory://`).

What lies where: `adapterhub.exchange.file_store`. Locally a file is synced and renamed into place,
elsewhere an object is visible only when its upload is complete.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from adapterhub.exchange.file_store import FileStore, FileStoreRemote


class FilesRemote(FileStoreRemote):
    """A `protocols.Remote`, by its URL."""

    def __init__(self, url: str) -> None:
        super().__init__(*_open(url))


def _open(url: str) -> tuple[str, FileStore]:
    if urlsplit(url).scheme == "file":
        from adapterhub_remotes.local_files import LocalFiles

        local = LocalFiles(url)
        return url, local
    from adapterhub_remotes.objects import Objects

    objects = Objects(url)
    return objects.url, objects
