"""`oci://host[:port]/path`: which server that is, and which repositories there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, urljoin, urlsplit

from adapterhub.errors import AdzError, usage_error
from adapterhub.reference import check_name

_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_LONGEST = 255

# The name that people know is not the server that answers, nor the one that `docker login` files.
_DOCKER_HUB = ("registry-1.docker.io", "https://index.docker.io/v1/")


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL. origin: `https://host:port`. path: before the adapters' names, maybe empty.

    account: what `docker login` files credentials under.
    """

    origin: str
    path: str
    account: str

    @property
    def is_loopback(self) -> bool:
        """Whether the server is this machine: it is then spoken to without TLS."""
        return is_loopback(urlsplit(self.origin))

    def repository(self, name: str) -> str:
        """The repository of an adapter. Raises a usage error where OCI has no such name."""
        found = f"{self.path}/{check_name(name)}" if self.path else check_name(name)
        if not _REPOSITORY.fullmatch(found) or len(found) > _LONGEST:
            raise usage_error(
                f"{name!r} cannot be a repository of an OCI registry",
                "there a name has a letter or a digit around each '.', '_' and '-'",
            )
        return found

    def name_of(self, repository: str) -> str | None:
        """The adapter whose repository that is, or None where it is none of ours."""
        prefix = f"{self.path}/" if self.path else ""
        if not repository.startswith(prefix):
            return None
        name = repository.removeprefix(prefix)
        try:
            return check_name(name)
        except AdzError:
            return None


def parse_address(url: str) -> Address:
    """The address that an `oci://` URL names; a usage error says what is wrong with it."""
    parts = _split(url)
    path = parts.path.strip("/")
    if "@" in parts.netloc:
        raise usage_error(
            "a password does not belong into a URL",
            "use 'docker login', or ADZ_OCI_USERNAME and ADZ_OCI_PASSWORD",
        )
    if not parts.hostname or parts.query or parts.fragment:
        raise usage_error(f"{url!r} names no OCI registry", "write oci://host[:port]/path")
    if path and not _REPOSITORY.fullmatch(path):
        raise usage_error(f"{url!r} has no valid path", "use lower-case letters and digits")
    host = parts.netloc.lower()
    server, account = _DOCKER_HUB if host == "docker.io" else (host, host)
    scheme = "http" if is_loopback(parts) else "https"
    return Address(f"{scheme}://{server}", path, account)


def is_loopback(url: SplitResult) -> bool:
    """Whether a URL's host is this machine."""
    host = url.hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def follow(origin: str, base: str, location: str) -> str:
    """The absolute URL of a redirect or an upload. Raises AdzError where it leaves TLS.

    Without TLS only this machine is spoken to, and nobody but itself may send us there.
    """
    try:
        target = urljoin(base, location)
        parts = urlsplit(target)
        _ = parts.port
    except ValueError as error:
        raise AdzError(f"{origin} redirects to what is no URL: {location[:100]!r}") from error
    local = is_loopback(parts) and is_loopback(urlsplit(origin))
    if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and local)):
        return target
    where = f"{parts.scheme}://{parts.hostname}"
    raise AdzError(f"{origin} redirects to {where[:100]}", "only https is followed from there")


def origin_of(url: str) -> str:
    """Scheme, host and port: who gets the credentials of whom."""
    parts = _split(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{port}"


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise usage_error(f"{url!r} is not a URL: {error}") from error
    return parts
