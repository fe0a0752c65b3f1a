"""The certificate of a server, checked before anything heavy begins."""

from __future__ import annotations

import ssl
from pathlib import Path

from adapterhub.errors import AdzError, usage_error


def check_certificate(certfile: Path | None, keyfile: Path | None) -> None:
    """Raise AdzError unless both or none are given, and belong together."""
    if certfile is None and keyfile is None:
        return
    if certfile is None or keyfile is None:
        raise usage_error("https needs both --ssl-certfile and --ssl-keyfile")
    for file in (certfile, keyfile):
        if not file.is_file():
            raise usage_error(f"there is no file {file}")
    try:
        # Without a password of ours OpenSSL would ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, lambda: "")
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        words = str(reason).replace("_", " ").lower()
        raise AdzError(
            f"{certfile} and {keyfile} are no certificate and its key: {words}",
            "give the chain and an unencrypted key in PEM form",
        ) from error
