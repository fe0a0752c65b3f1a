"""Where a server listens, checked before anything heavy begins."""

from __future__ import annotations

import errno
import ipaddress
import socket

from adapterhub.errors import AdzError, usage_error

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104


def check_free(host: str, port: int) -> None:
    """Raise AdzError when nothing could listen on `host` and `port` now."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise usage_error(
            f"{host!r} is not an address of this machine: {error.strerror}"
        ) from error
    with socket.socket(family, kind, protocol) as probe:
        # A server that just ended leaves connections behind; they do not block a new one.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise cannot_listen(host, port, error) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def api_url(host: str, port: int, *, tls: bool = False) -> str:
    """The URL that a client on this machine uses, such as `http://127.0.0.1:8000/v1`."""
    name = _EVERYWHERE.get(host, f"[{host}]" if ":" in host else host)
    return f"http{'s' if tls else ''}://{name}:{port}/v1"


def cannot_listen(host: str, port: int, error: OSError) -> AdzError:
    """Why nothing can listen there, for who starts a server."""
    if error.errno == errno.EADDRINUSE:
        return AdzError(f"port {port} on {host} is in use", "choose another with --port")
    if error.errno == errno.EACCES:
        return AdzError(f"port {port} needs privileges", "choose one above 1023 with --port")
    return AdzError(f"cannot listen on {host}:{port}: {error.strerror or error}")
