"""`--ca`: which certificates a command trusts when it asks a server over https."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from adapterhub.errors import usage_error

F = TypeVar("F", bound=Callable[..., Any])


def ca_option(function: F) -> F:
    """Add `--ca` to a command. It stands for SSL_CERT_FILE, which every HTTP client reads."""
    return click.option(
        "--ca",
        type=click.Path(path_type=Path),
        metavar="FILE",
        expose_value=False,
        callback=_trust,
        help="Certificates to trust (PEM), instead of the system's.",
    )(function)


def _trust(context: click.Context, parameter: click.Parameter, file: Path | None) -> None:
    if file is None:
        return
    import ssl

    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:
        # OpenSSL's own errors have no words for a file without certificates.
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise usage_error(f"--ca {file} cannot be used: {reason}") from error
    os.environ["SSL_CERT_FILE"] = str(file)
