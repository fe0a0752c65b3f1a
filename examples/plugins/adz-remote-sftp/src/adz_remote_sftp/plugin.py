"""What this plugin offers. Many commands import it, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterator

from adapterhub import hookimpl, specs


@hookimpl
def adapterhub_remotes() -> Iterator[specs.Remote]:
    """`adz push sql --to sftp://host/srv/adapters`"""
    yield specs.Remote(
        name="sftp",
        summary="A folder on a machine that one reaches by SSH: sftp://[user@]host[:port]/path",
        impl="adz_remote_sftp.sftp:open_sftp",
        schemes=("sftp",),
        requires=("paramiko",),
        install_hint="pip install adz-remote-sftp",
    )
