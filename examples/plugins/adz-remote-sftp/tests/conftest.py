"""A real SFTP server (asyncssh, which shares nothing with paramiko), and who may log in."""

from __future__ import annotations

import asyncio
from threading import Thread

import asyncssh
import pytest


class SftpServer:
    """Listens on a port of this machine, in a thread, until it is closed."""

    def __init__(self, host_key, authorized):
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._connections = set()

        class Server(asyncssh.SSHServer):
            def connection_made(server, connection):
                self._connections.add(connection)

        async def listen():
            return await asyncssh.listen(
                "127.0.0.1", 0,
                server_host_keys=[host_key], authorized_client_keys=authorized,
                server_factory=Server, sftp_factory=True,
            )  # fmt: skip

        self._acceptor = asyncio.run_coroutine_threadsafe(listen(), self._loop).result(30)
        self.port = self._acceptor.get_port()

    def cut(self):
        """Every connection, as a network that fails."""
        for connection in list(self._connections):
            self._loop.call_soon_threadsafe(connection.abort)
        self._connections.clear()

    def close(self):
        self._loop.call_soon_threadsafe(self._acceptor.close)
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """`~/.ssh` of a user who may log in and knows the server; `SSH_AUTH_SOCK` is nobody's."""
    user = tmp_path / "user"
    folder = user / ".ssh"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(folder / "id_ed25519")
    key.write_public_key(tmp_path / "authorized_keys")
    return folder


@pytest.fixture
def server(ssh, tmp_path):
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    server = SftpServer(host_key, str(tmp_path / "authorized_keys"))
    public = host_key.export_public_key().decode().strip()
    (ssh / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {public}\n")
    yield server
    server.close()
