"""A server that needs no key is for this machine's user, not for every web page in a browser."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import urlsplit

from adapterhub.serve.address import is_loopback
from adapterhub.serve.errors import RequestError


def refuse_other_sites(headers: dict[bytes, bytes]) -> None:
    """Raise RequestError 403 for a request that a page of another site sends (`Origin`), or that
    reached this machine under a name of someone else's (`Host`, DNS rebinding)."""
    host = headers.get(b"host", b"").decode("latin-1").lower()
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    try:
        name = urlsplit(f"//{host}").hostname
        own_page = not origin or urlsplit(origin).netloc == host
    except ValueError:
        name, own_page = host, False
    if (name and not is_loopback(name)) or not own_page:
        raise RequestError(
            HTTPStatus.FORBIDDEN,
            "this server has no keys, and answers requests to localhost only, none of other "
            "web sites: adz keys new",
            None,
        )
