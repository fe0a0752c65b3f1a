"""A repository of the Hub in memory: commits that hold a tree of paths, branches and tags that
point at commits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

LARGE = (".safetensors", ".bin", ".gguf")


@dataclass(frozen=True)
class Entry:
    """A file of a commit: its bytes, and whether it is kept as a large file."""

    data: bytes
    large: bool = False

    @property
    def oid(self) -> str:
        """git's name of the blob; of a large file that of its pointer."""
        data = self.data
        if self.large:
            data = b"version https://git-lfs.github.com/spec/v1\noid sha256:%b\nsize %d\n" % (
                self.sha256.encode(),
                len(self.data),
            )
        return hashlib.sha1(b"blob %d\0%b" % (len(data), data)).hexdigest()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass
class Repository:
    """branches, tags: name -> commit. commits: sha -> its files by path."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Entry]] = field(default_factory=dict)
    parents: dict[str, str | None] = field(default_factory=dict)

    def commit(self, branch: str, tree: dict[str, Entry], parent: str | None) -> str:
        text = json.dumps([parent, len(self.commits), sorted((p, e.oid) for p, e in tree.items())])
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha], self.parents[sha] = tree, parent
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        if revision in self.commits:
            return revision
        return self.branches.get(revision) or self.tags.get(revision)

    def reachable(self) -> Iterator[str]:
        """The commits that a branch or a tag leads to."""
        seen: set[str] = set()
        for start in (*self.branches.values(), *self.tags.values()):
            sha: str | None = start
            while sha is not None and sha not in seen:
                seen.add(sha)
                yield sha
                sha = self.parents[sha]
