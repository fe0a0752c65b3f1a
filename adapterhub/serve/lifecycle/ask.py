"""One question to a server of this machine, without the client's libraries."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request


def ask(url: str, key: str, seconds: float = 10.0) -> bytes | None:
    """What `GET url` answers; None where nothing does, or it refuses."""
    request = urllib.request.Request(url)  # noqa: S310
    request.add_header("Authorization", f"Bearer {key}")
    try:
        with _opener().open(request, timeout=seconds) as response:
            content: bytes = response.read()
            return content
    except (OSError, ValueError, urllib.error.URLError):
        return None


def status_of(url: str, seconds: float = 10.0) -> int | None:
    """The status of `GET url`, which needs no key; None where nothing answers."""
    try:
        with _opener().open(url, timeout=seconds) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, ValueError, urllib.error.URLError):
        return None


def _opener() -> urllib.request.OpenerDirector:
    # On this machine, under an address that the certificate need not name.
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
