"""The commits of one repository on the Hub: what they hold, and writing a version as one."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
)
from huggingface_hub.hf_api import RepoFile

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import FileRecord, Manifest
from adapterhub.protocols import RemoteFile, RemoteVersion
from adapterhub_remotes.hub_access import read_small

MANIFEST = "adapterhub.json"
SIGNATURE = "adapterhub.sig"
CARD = "README.md"
_KEPT = frozenset({".gitattributes"})


def wanted_files(manifest: bytes) -> tuple[int, dict[str, FileRecord]]:
    """The number of a version and what its commit holds of the payload and the artifacts."""
    described = Manifest.model_validate_json(manifest)
    files = dict(described.files)
    files |= {f"artifacts/{name}": record for name, record in described.artifacts.items()}
    taken = {MANIFEST, SIGNATURE} & files.keys()
    if taken:
        raise AdzError(
            f"{described.name}@{described.version} has a file {taken.pop()}, which means "
            "something else on the Hub",
            "push it to another kind of remote",
        )
    return described.version, files


class Commits:
    """What is known of a repository, and what was uploaded for its next commit."""

    def __init__(self, api: HfApi, repository: str) -> None:
        self._api = api
        self._repository = repository
        self._trees: dict[str, dict[str, RepoFile]] = {}
        self._holders: dict[tuple[str, str], str] = {}
        self._uploaded: dict[str, CommitOperationAdd] = {}
        self._branches: list[str] = []
        self._lock = threading.Lock()
        self._created = False

    def tree(self, commit: str) -> Mapping[str, RepoFile]:
        """The files of a commit by path."""
        if commit not in self._trees:
            entries = self._api.list_repo_tree(self._repository, recursive=True, revision=commit)
            self._trees[commit] = {e.path: e for e in entries if isinstance(e, RepoFile)}
        return self._trees[commit]

    def found(self, commit: str, manifest: bytes) -> None:
        """Note which files a commit holds; of a manifest that is broken none."""
        try:
            _, files = wanted_files(manifest)
        except ValueError:
            return
        paths = self.tree(commit)
        for name, record in files.items():
            if name in paths and _matches(paths[name], record):
                self._holders[name, record.sha256] = commit

    def holder(self, file: RemoteFile) -> str | None:
        """A commit that holds the file under its name, or None."""
        return self._holders.get((file.name, file.record.sha256))

    def create_repository(self) -> None:
        """Create the repository, private, where it is not there."""
        with self._lock:
            if not self._created:
                self._api.create_repo(self._repository, private=True, exist_ok=True)
                self._created = True

    def upload(self, file: RemoteFile, source: Path) -> None:
        """Bring a file's bytes there, or keep those of a small one for the commit."""
        self.create_repository()
        addition = CommitOperationAdd(file.name, source)
        self._api.preupload_lfs_files(self._repository, [addition])
        # What goes into the commit itself is read now: `source` does not outlive this call.
        if addition.path_or_fileobj != b"":
            addition = CommitOperationAdd(file.name, source.read_bytes())
        if addition.upload_info.sha256.hex() != file.record.sha256.removeprefix("sha256:"):
            raise AdzError(
                f"{source} changed while it was pushed", "try again", exit_code=EXIT_VERIFICATION
            )
        with self._lock:
            self._uploaded[file.record.sha256] = addition

    def write(
        self, version: RemoteVersion, card: str, *, before: str | None, is_highest: bool
    ) -> str:
        """Write a version as one commit and return its sha; `before`, the commit that it has,
        where that holds all of it.

        The highest version goes to `main`, an earlier one to a branch of its own: see `tidy`.
        Raises AdzError (exit code 3) where another version is there already, or where the
        commit, read back, is not what was written.
        """
        number, files = wanted_files(version.manifest)
        if before is not None and self._is_written(before, version, number):
            return before
        own = {MANIFEST: version.manifest, CARD: card.encode()}
        own |= {SIGNATURE: version.signature} if version.signature is not None else {}
        own = {name: data for name, data in own.items() if name not in files}
        branch = "main" if is_highest else f"adapterhub-v{number}"
        head = self._head(branch)
        there = self.tree(head).keys() - _KEPT if head else set()
        commit: str = self._api.create_commit(
            self._repository,
            [
                *map(CommitOperationDelete, sorted(there - own.keys() - files.keys())),
                *self._additions(files, own),
            ],
            commit_message=f"version {number}",
            revision=branch,
            parent_commit=head,
        ).oid
        self._check(commit, files, own)
        self.found(commit, version.manifest)
        return commit

    def tidy(self) -> None:
        """Delete the branches of `write`, once a tag keeps their commits."""
        while self._branches:
            self._api.delete_branch(self._repository, branch=self._branches.pop())

    def _is_written(self, commit: str, version: RemoteVersion, number: int) -> bool:
        there = read_small(self._api, self._repository, commit, MANIFEST)
        if there != version.manifest:
            raise AdzError(
                f"version {number} in {self._repository} is another one",
                "pull it under another name, or push yours under another one",
                exit_code=EXIT_VERIFICATION,
            )
        if version.signature is None:
            return True
        if SIGNATURE not in self.tree(commit):
            return False
        return read_small(self._api, self._repository, commit, SIGNATURE) == version.signature

    def _head(self, branch: str) -> str | None:
        """The commit to write upon; a branch other than `main` starts anew from there."""
        branches = {
            ref.name: ref.target_commit
            for ref in self._api.list_repo_refs(self._repository).branches
        }
        head = branches.get("main")
        if branch != "main":
            if branch in branches:
                self._api.delete_branch(self._repository, branch=branch)
            self._api.create_branch(self._repository, branch=branch, revision=head)
            self._branches.append(branch)
        return head

    def _additions(
        self, files: Mapping[str, FileRecord], own: Mapping[str, bytes]
    ) -> Iterator[CommitOperationAdd | CommitOperationCopy]:
        for name, data in own.items():
            yield CommitOperationAdd(name, data)
        for name, record in files.items():
            holder = self._holders.get((name, record.sha256))
            if record.sha256 in self._uploaded:
                # Equal bytes are uploaded once, for each of their names.
                addition = copy.copy(self._uploaded[record.sha256])
                addition.path_in_repo = name
                yield addition
            elif holder is not None:
                yield CommitOperationCopy(name, name, src_revision=holder)
            else:
                raise AdzError(f"{name} was not uploaded to {self._repository}", "push it again")

    def _check(
        self, commit: str, files: Mapping[str, FileRecord], own: Mapping[str, bytes]
    ) -> None:
        """A commit that someone else made in between may have changed what ours builds upon."""
        there = {path: entry for path, entry in self.tree(commit).items() if path not in _KEPT}
        right = there.keys() == files.keys() | own.keys()
        right = right and all(_matches(there[name], record) for name, record in files.items())
        right = right and all(there[name].blob_id == _blob_id(own[name]) for name in own)
        if not right:
            raise AdzError(
                f"{self._repository}: the commit {commit[:12]} is not what was pushed",
                "someone else changed it at the same time: push again",
                exit_code=EXIT_VERIFICATION,
            )


def _matches(entry: RepoFile, record: FileRecord) -> bool:
    same = entry.lfs is None or f"sha256:{entry.lfs.sha256}" == record.sha256
    return same and entry.size == record.size


def _blob_id(data: bytes) -> str:
    """What git calls a file of these bytes."""
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data), usedforsecurity=False).hexdigest()
