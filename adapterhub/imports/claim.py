"""Saying of a stored version which base it belongs to: a new version with the same files."""

from __future__ import annotations

from adapterhub.bases.choose import choose_base
from adapterhub.bases.identity import check_version, why_not_version
from adapterhub.bases.verify import verify_base
from adapterhub.errors import usage_error
from adapterhub.manifest import BaseLink, Manifest, Parent, Version
from adapterhub.policy import load_policy
from adapterhub.protocols import Progress, Registry
from adapterhub.reference import check_new_name
from adapterhub.staging import home_staging, staging_folder


def claim_base(
    registry: Registry, reference: str, base: str | None, progress: Progress, *, name: str | None
) -> Version:
    """Store the files of `reference` as the next version of its name, or of `name`, with `base`
    asserted; None is the only base there is.

    What is known of how it was made stays, and the old version is its parent. Raises AdzError
    where the gates find that it does not fit or where another base was recorded when it was made,
    and a usage error where it has that base already.
    """
    if reference.partition("@")[0] not in registry.names():
        raise usage_error(
            f"there is neither a directory {reference} nor an adapter of that name",
            "give the adapter's directory, or a version whose base is to be named",
        )
    version = registry.resolve(reference)
    record = choose_base(registry, base)
    target = check_new_name(name or version.name)
    load_policy().check_unsigned(target)
    if target == version.name and why_not_version(version, record) is None:
        raise usage_error(f"{version.reference} is used on {record.name} already")
    if version.manifest.base.status == "recorded":
        check_version(version, record)
    verify_base(record)
    parent = Parent(name=version.name, version=version.number, digest=version.digest, role="source")
    manifest = version.manifest.model_copy(
        update={
            "name": target,
            "version": 0,
            "made_by": "import",
            "base": BaseLink(status="asserted", name=record.name, digests=record.digests),
            "parents": (parent,),
            "created": "",
        }
    )
    with progress.task(f"checking {version.reference}", None):
        return _commit(registry, version, manifest)


def _commit(registry: Registry, version: Version, manifest: Manifest) -> Version:
    if not version.manifest.artifacts:
        return registry.commit(manifest, registry.path(version))
    with staging_folder(home_staging()) as staged:
        registry.artifacts(version, staged)
        return registry.commit(manifest, registry.path(version), staged)
