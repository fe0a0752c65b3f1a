"""The remotes that come with adapterhub."""

from __future__ import annotations

from collections.abc import Iterator

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_remotes() -> Iterator[specs.Remote]:
    """Remotes by the scheme of their URL."""
    yield specs.Remote(
        name="oci",
        summary="An OCI registry: oci://host/path, a repository for each adapter",
        impl="adapterhub_remotes.oci.remote:OciRemote",
        schemes=("oci",),
    )
    yield specs.Remote(
        name="hub",
        summary="The Hugging Face Hub: hub://organisation, a repository for each adapter",
        impl="adapterhub_remotes.hub:HubRemote",
        schemes=("hub",),
    )
    yield specs.Remote(
        name="files",
        summary="A directory (file://), S3 (s3://) or another file system of fsspec",
        impl="adapterhub_remotes.files:FilesRemote",
        schemes=("file", "s3", "gs", "az", "memory"),
    )
