"""Finding the remote that a URL names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from adapterhub import specs
from adapterhub.errors import unknown_name, usage_error
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Remote
from adapterhub.reference import is_directory_reference


def open_remote(location: str) -> Remote:
    """The remote at a URL (`oci://host/path`, `hub://org`, `s3://bucket/path`) or a directory
    (`./share`). Raises a usage error for a scheme that no plugin opens."""
    if is_directory_reference(location):
        location = Path(location).expanduser().absolute().as_uri()
    scheme = urlsplit(location).scheme
    plugins = load_plugins()
    components = [
        provided.component
        for provided in plugins.provided(specs.Remote)
        if isinstance(provided.component, specs.Remote)
    ]
    for component in components:
        if scheme in component.schemes:
            remote: Remote = plugins.load_implementation(component)(location)
            return remote
    if not scheme:
        raise usage_error(
            f"{location!r} is neither a URL nor a directory",
            f"write a directory as ./{location}, an OCI registry as oci://host/path",
        )
    if scheme in ("http", "https"):
        raise usage_error(
            f"{location} does not say what is there", "write an OCI registry as oci://host/path"
        )
    known = [f"{name}://" for component in components for name in component.schemes]
    raise unknown_name("kind of remote", f"{scheme}://", known)
