"""Data sets of the Hugging Face Hub: `hub:owner/name`, or one of its sets of files by path.

The files are fetched as they are and read by our own containers; no code of a repository runs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from adapterhub.data.containers import SUFFIXES
from adapterhub.errors import AdzError, usage_error

_SOURCE = re.compile(r"hub:([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?(?:/(.+))?", re.ASCII)
# `train-00000-of-00004.parquet` is a part of `train`.
_PART = re.compile(r"-\d{5}-of-\d{5}\Z")


@dataclass(frozen=True, slots=True)
class HubFiles:
    """Files of one data set, in order. name: with the commit that they are from."""

    name: str
    paths: tuple[Path, ...]


def is_hub(source: str) -> bool:
    """Whether a source names a data set of the Hub."""
    return source.startswith("hub:")


def fetch_files(source: str) -> HubFiles:
    """Fetch what `source` names, or find it in the Hub's own cache when offline.

    `hub:owner/name` where there is one set of files, `hub:owner/name/data/train` of several,
    `hub:owner/name@revision/...`. AdzError names the sets when one must be chosen.
    """
    found = _SOURCE.fullmatch(source)
    if found is None:
        raise usage_error(f"{source!r} is no data set", "such as hub:owner/name/data/train")
    repository, revision, wanted = found.groups()
    snapshot = _snapshot(repository, revision)
    groups = _groups(snapshot)
    if wanted is None and len(groups) == 1:
        wanted = next(iter(groups))
    if wanted not in groups:
        problem = f"has no {wanted}" if wanted else "holds several sets of rows"
        known = ", ".join(f"hub:{repository}/{name}" for name in sorted(groups)) or "none"
        raise usage_error(f"{repository} {problem}", f"name one: {known}")
    return HubFiles(f"hub:{repository}@{snapshot.name}/{wanted}", tuple(groups[wanted]))


def _groups(snapshot: Path) -> dict[str, list[Path]]:
    """Files with rows by their path without suffix and number of part."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(snapshot.rglob("*")):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            name = PurePosixPath(path.relative_to(snapshot)).with_suffix("")
            groups.setdefault(_PART.sub("", str(name)), []).append(path)
    return groups


def _snapshot(repository: str, revision: str | None) -> Path:
    from huggingface_hub import constants, errors, snapshot_download

    patterns = [f"*{suffix}" for suffix in SUFFIXES]
    try:
        return Path(
            snapshot_download(
                repository, repo_type="dataset", revision=revision, allow_patterns=patterns
            )
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise usage_error(
            f"there is no data set {repository}{f'@{revision}' if revision else ''} "
            "on the Hugging Face Hub",
            "check the name; a private one needs hf auth login",
        ) from error
    except errors.LocalEntryNotFoundError as error:
        offline = "and HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "nor reachable"
        raise AdzError(
            f"{repository} is not in the cache {offline}", "give a file, or go online"
        ) from error
    except (errors.HfHubHTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise AdzError(f"{repository} cannot be fetched: {reason}", "try again") from error
