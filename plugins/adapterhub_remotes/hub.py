"""The Hugging Face Hub as a remote: `hub://organisation` or `hub://organisation/prefix`.

Each adapter is a model repository: `team/sql` is `organisation/team__sql`, with a prefix
`organisation/prefix-team__sql`. A repository is created private; who owns it can open it there.

A version is one commit. At its root lie the files of the payload, so that
`PeftModel.from_pretrained(base, "organisation/sql", revision="v7")` opens it, and beside them
`adapterhub.json` (the manifest), `adapterhub.sig` (a signature), `artifacts/`, and as README.md
the card, where the payload has no README of its own. The tag `v7` makes version 7 visible; it is
set when the commit was read back. An alias is a tag too. The Hub cannot move a tag in one step:
while `prod` moves, `MOVING-prod` is where it goes, so that we always find it; who else reads the
tag `prod` may miss it for a moment. `main` is the highest version that was pushed.

Address, token and offline mode are those of huggingface_hub: HF_ENDPOINT, HF_TOKEN or
`hf auth login`, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    HFValidationError,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import GitRefs
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from adapterhub.errors import AdzError, usage_error
from adapterhub.protocols import RemoteFile, RemoteVersion
from adapterhub.reference import check_alias, check_name
from adapterhub_remotes.hub_access import clear_errors, read_file, read_small
from adapterhub_remotes.hub_commit import MANIFEST, SIGNATURE, Commits, wanted_files

_NUMBER = re.compile(r"v([1-9][0-9]*)")
# No alias has capitals.
_MOVING = "MOVING-"
_PATH = re.compile(r"/?([A-Za-z0-9][\w.-]*)?/?")


class HubRemote:
    """A `protocols.Remote`; the module says what lies where."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        path = _PATH.fullmatch(parts.path)
        if not parts.netloc or "@" in parts.netloc or not path:
            raise usage_error(
                f"{url} names no organisation of the Hub",
                "write hub://organisation, or hub://organisation/prefix",
            )
        self.url = url
        self._organisation = parts.netloc
        self._prefix = f"{path[1]}-" if path[1] else ""
        self._api = HfApi(library_name="adapterhub")
        self._commits: dict[str, Commits] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Every adapter there; see `protocols.Remote`."""
        start = f"{self._organisation}/{self._prefix}"
        with clear_errors(self.url):
            # The card of a payload's own may have no tag of ours: the manifest tells.
            models = self._api.list_models(author=self._organisation, full=True)
            ids = [
                model.id
                for model in models
                if any(file.rfilename == MANIFEST for file in model.siblings or ())
            ]
        return sorted(
            name
            for repository in ids
            if repository.startswith(start)
            and _is_name(name := repository.removeprefix(start).replace("__", "/"))
        )

    def tags(self, name: str) -> list[str]:
        """The numbers and aliases of an adapter; see `protocols.Remote`."""
        refs = self._refs(name)
        names = _settled(_tags(refs)) if refs else {}
        return sorted(match[1] if (match := _NUMBER.fullmatch(tag)) else tag for tag in names)

    def find(self, name: str, tag: str) -> RemoteVersion | None:
        """The version that a number or an alias means; see `protocols.Remote`."""
        git_tag, refs = _git_tag(tag), self._refs(name)
        commit = _settled(_tags(refs)).get(git_tag) if refs else None
        if commit is None:
            return None
        repository = self._repository(name)
        known = self._commits_of(name)
        with clear_errors(repository):
            paths = known.tree(commit)
            if MANIFEST not in paths:
                # A tag that someone else set, on a commit of theirs.
                return None
            manifest = read_small(self._api, repository, commit, MANIFEST)
            signature = None
            if SIGNATURE in paths:
                signature = read_small(self._api, repository, commit, SIGNATURE)
        known.found(commit, manifest)
        return RemoteVersion(manifest, signature, commit)

    def contains(self, name: str, file: RemoteFile) -> bool:
        """Whether a version that was found holds the file; see `protocols.Remote`."""
        return self._commits_of(name).holder(file) is not None

    def read(
        self, name: str, version: RemoteVersion, file: RemoteFile, offset: int
    ) -> Iterator[bytes]:
        """The file's bytes from `offset` on; see `protocols.Remote`."""
        repository = self._repository(name)
        return read_file(self._api, repository, version.location, file.name, offset)

    def write(self, name: str, file: RemoteFile, source: Path, sent: Callable[[int], None]) -> None:
        """Upload one file; see `protocols.Remote`."""
        with clear_errors(self._repository(name)):
            self._commits_of(name).upload(file, source)
        sent(file.record.size)

    def publish(self, name: str, version: RemoteVersion, tags: Sequence[str], card: str) -> None:
        """Make a version visible; see `protocols.Remote`. A number that means another version
        there already is refused."""
        number, _ = wanted_files(version.manifest)
        repository, commits = self._repository(name), self._commits_of(name)
        git_tags = {_git_tag(tag) for tag in tags}
        with clear_errors(repository):
            commits.create_repository()
            there = _tags(self._api.list_repo_refs(repository))
            own = f"v{number}"
            commit = _settled(there).get(own)
            if commit is None or own in git_tags:
                numbers = [int(found[1]) for tag in there if (found := _NUMBER.fullmatch(tag))]
                commit = commits.write(
                    version, card, before=commit, is_highest=number >= max(numbers, default=0)
                )
            for tag in sorted(git_tags, key=lambda tag: tag != own):
                self._point(repository, tag, there, commit)
            commits.tidy()

    def _point(self, repository: str, tag: str, there: Mapping[str, str], commit: str) -> None:
        """Set a tag so that `_settled` finds it at every moment. What a killed move left is
        found too, and tidied by the next move of the same tag."""
        moving, before = _MOVING + tag, _settled(there).get(tag)
        if moving in there:
            if tag not in there:
                self._api.create_tag(repository, tag=tag, revision=there[moving])
            self._api.delete_tag(repository, tag=moving)
        if before == commit:
            return
        if before is None:
            self._api.create_tag(repository, tag=tag, revision=commit)
            return
        self._api.create_tag(repository, tag=moving, revision=commit)
        self._api.delete_tag(repository, tag=tag)
        self._api.create_tag(repository, tag=tag, revision=commit)
        self._api.delete_tag(repository, tag=moving)

    def _refs(self, name: str) -> GitRefs | None:
        repository = self._repository(name)
        with clear_errors(repository):
            try:
                return self._api.list_repo_refs(repository)
            except RepositoryNotFoundError:
                return None

    def _commits_of(self, name: str) -> Commits:
        with self._lock:
            repository = self._repository(name)
            return self._commits.setdefault(name, Commits(self._api, repository))

    def _repository(self, name: str) -> str:
        text = self._prefix + check_name(name).replace("/", "__")
        repository = f"{self._organisation}/{text}"
        try:
            validate_repo_id(repository)
        except HFValidationError as error:
            raise usage_error(
                f"{repository} cannot be the name of a repository on the Hub",
                "there '--' and '..' are not allowed, nor '-' and '.' at the end, nor more than "
                "96 characters",
            ) from error
        return repository


def _tags(refs: GitRefs) -> dict[str, str]:
    """The commit of each tag."""
    return {ref.name: ref.target_commit for ref in refs.tags}


def _settled(tags: Mapping[str, str]) -> dict[str, str]:
    """The same once the aliases that are moving have arrived."""
    arriving = {
        tag.removeprefix(_MOVING): commit for tag, commit in tags.items() if tag.startswith(_MOVING)
    }
    return arriving | {tag: c for tag, c in tags.items() if not tag.startswith(_MOVING)}


def _git_tag(tag: str) -> str:
    if tag.isascii() and tag.isdigit():
        return f"v{tag}"
    if _NUMBER.fullmatch(check_alias(tag)):
        raise usage_error(
            f"the alias {tag} cannot go to the Hub", f"there {tag} is the version {tag[1:]}"
        )
    return tag


def _is_name(name: str) -> bool:
    try:
        return bool(check_name(name))
    except AdzError:
        return False
