"""An adapter of anyone's on the Hugging Face Hub: `hub:organisation/name`, `...@revision`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapterhub.bases.adapter_files import CONFIG, MAX_PAYLOAD, PAYLOAD, WEIGHTS
from adapterhub.bases.digests import hash_file
from adapterhub.errors import EXIT_VERIFICATION, AdzError, usage_error
from adapterhub.imports.pipeline import import_adapter
from adapterhub.imports.source import EXPORTED, MAX_JSON, PICKLES
from adapterhub.manifest import Version
from adapterhub.policy import load_policy
from adapterhub.protocols import Progress, Registry
from adapterhub.reference import check_new_name
from adapterhub.staging import home_staging, staging_folder

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

SCHEME = "hub:"
_SOURCE = re.compile(r"hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository at a commit; `revision` is what was asked for."""

    repository: str
    revision: str | None
    commit: str

    def recipe(self) -> dict[str, str]:
        """What the manifest keeps: enough to fetch the same bytes again."""
        kept = {"source": SCHEME + self.repository, "commit": self.commit}
        return kept | ({"revision": self.revision} if self.revision else {})


def import_from_hub(
    registry: Registry,
    source: str,
    name: str,
    base: str | None,
    progress: Progress,
    *,
    convert: bool = False,
) -> Version:
    """Fetch the adapter that `source` names and import it as `import_adapter` does.

    Only its configuration, its safetensors and its README are fetched, and with `convert`
    pickled weights where there are no others; never code. What they weigh is known before.
    Raises AdzError for a repository that is not there, holds no adapter, or is too large.
    """
    load_policy().check_unsigned(check_new_name(name))
    match = _SOURCE.fullmatch(source)
    if not match:
        raise usage_error(
            f"{source!r} names no repository of the Hub", "write hub:organisation/name[@revision]"
        )
    with staging_folder(home_staging()) as folder:
        with _clear_errors(match[1]):
            found = _download(match[1], match[2], folder, progress, convert=convert)
        return import_adapter(
            registry, folder, name, base, progress, convert=convert, recipe=found.recipe()
        )


def _download(
    repository: str, revision: str | None, folder: Path, progress: Progress, *, convert: bool
) -> HubSource:
    found, files = _look(repository, revision)
    wanted = _choose(repository, files, convert=convert)
    size = sum(files[path].size for path in wanted)
    with progress.task(f"fetching {repository} (MB)", size / 1e6) as bar:
        for path in wanted:
            _fetch(found, files[path], folder)
            bar.advance(files[path].size / 1e6)
    # What huggingface_hub notes about a download.
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    left = sorted(files.keys() - set(wanted))
    if left:
        progress.note(f"not fetched: {', '.join(left)[:300]}")
    return found


def _look(repository: str, revision: str | None) -> tuple[HubSource, dict[str, RepoFile]]:
    """The commit that is meant now, and the files at its root."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(library_name="adapterhub")
    commit = api.model_info(repository, revision=revision, timeout=30).sha
    if commit is None:
        raise AdzError(f"the Hub does not say which commit of {repository} is meant")
    entries = api.list_repo_tree(repository, revision=commit)
    files = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    return HubSource(repository, revision, commit), files


def _choose(repository: str, files: Mapping[str, RepoFile], *, convert: bool) -> list[str]:
    if CONFIG not in files:
        is_base = "config.json" in files
        raise usage_error(
            f"hub:{repository} holds no adapter: there is no {CONFIG}",
            f"it looks like a base: adz base add NAME {repository}" if is_base else "",
        )
    wanted = [name for name in (*PAYLOAD, EXPORTED) if name in files]
    if WEIGHTS not in files:
        pickles = [name for name in PICKLES if name in files]
        if not pickles:
            raise usage_error(f"hub:{repository} holds no adapter: there is no {WEIGHTS}")
        if not convert:
            raise AdzError(
                f"{pickles[0]} of hub:{repository} is a pickle, which can run code when it is "
                "loaded",
                "only safetensors are stored: --convert reads it in a locked-down process and "
                "stores safetensors",
                exit_code=EXIT_VERIFICATION,
            )
        wanted.append(pickles[0])
    for name in wanted:
        limit = MAX_JSON if name.endswith(".json") else MAX_PAYLOAD
        if files[name].size > limit:
            raise AdzError(
                f"{name} of hub:{repository} has {files[name].size} bytes, at most {limit} are "
                "fetched",
                exit_code=EXIT_VERIFICATION,
            )
    return wanted


def _fetch(source: HubSource, file: RepoFile, folder: Path) -> None:
    from huggingface_hub import hf_hub_download

    path = Path(
        hf_hub_download(source.repository, file.path, revision=source.commit, local_dir=folder)
    )
    right = path.stat().st_size == file.size
    if file.lfs is not None:
        right = right and hash_file(path) == f"sha256:{file.lfs.sha256}"
    if not right:
        raise AdzError(
            f"{file.path} of hub:{source.repository} came with other bytes than the Hub lists",
            "try again",
            exit_code=EXIT_VERIFICATION,
        )


@contextmanager
def _clear_errors(repository: str) -> Iterator[None]:
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise AdzError(
            f"{repository} is gated", "accept its terms and run hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise usage_error(
            f"{repository} has no such revision", "give a branch, a tag or a commit"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise usage_error(
            f"there is no {repository} on the Hugging Face Hub",
            "check the name; a private one needs hf auth login",
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise AdzError(
            f"{repository} cannot be fetched: HF_HUB_OFFLINE is set", "go online"
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, httpx2.TransportError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise AdzError(f"{repository} cannot be fetched: {reason}", "try again") from error
