"""The remote `sftp`."""

from __future__ import annotations

import pytest
from adz_remote_sftp.sftp import open_sftp

from adapterhub import AdzError
from adapterhub.exchange.remotes import open_remote
from adapterhub.manifest import FileRecord, sha256_of
from adapterhub.protocols import RemoteFile, RemoteVersion, TransferInterruptedError
from adapterhub.testing import RemoteConformance

DATA = bytes(range(256)) * 40_000  # 10 MB: more than is under way at once


class TestSftp(RemoteConformance):
    """What every remote promises."""

    name = "sftp"

    @pytest.fixture(autouse=True)
    def running(self, server):
        self.server = server

    def url(self, folder):
        return f"sftp://adz@127.0.0.1:{self.server.port}{folder}/share"


@pytest.fixture
def url(server, tmp_path):
    return f"sftp://adz@127.0.0.1:{server.port}{tmp_path}/share"


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(DATA)
    return RemoteFile(
        "adapter_model.safetensors", FileRecord(sha256=sha256_of(DATA), size=len(DATA))
    )


def test_a_folder_of_the_machine_itself_is_the_same_remote(adz, tiny_adapters, url, tmp_path):
    pushed = adz("push", "tiny-a", "--to", url)
    assert pushed.code == 0, pushed.err
    local = (tmp_path / "share").as_uri()
    assert open_remote(local).names() == ["tiny-a"]
    assert adz("push", "tiny-b", "--to", local).code == 0
    assert open_sftp(url).names() == ["tiny-a", "tiny-b"]
    assert list((tmp_path / "share" / "unfinished").iterdir()) == []


def test_a_download_that_broke_off_goes_on(server, url, large, tmp_path):
    remote = open_sftp(url)
    remote.write("sql", large, tmp_path / "large", lambda count: None)
    chunks = remote.read("sql", RemoteVersion(b"{}"), large, 0)
    begun = next(chunks)
    server.cut()
    with pytest.raises(TransferInterruptedError):
        list(chunks)
    rest = b"".join(remote.read("sql", RemoteVersion(b"{}"), large, len(begun)))
    assert begun + rest == DATA


def test_an_upload_that_broke_off_leaves_nothing_to_be_found(server, url, large, tmp_path):
    remote = open_sftp(url)
    with pytest.raises(AdzError, match="cannot be written"):
        remote.write("sql", large, tmp_path / "large", lambda count: server.cut())
    assert not remote.contains("sql", large)
    remote.write("sql", large, tmp_path / "large", lambda count: None)
    assert remote.contains("sql", large)


def test_config_of_ssh_names_the_host(server, ssh, url, tmp_path):
    (ssh / "config").write_text(f"Host box\n  HostName 127.0.0.1\n  Port {server.port}\n  User a\n")
    remote = open_sftp(f"sftp://box{tmp_path}/share")
    assert remote.find("sql", "1") is None


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda ssh: (ssh / "known_hosts").unlink(), "not found in known_hosts"),
        (lambda ssh: (ssh / "id_ed25519").unlink(), "takes none of your keys"),
    ],
)
def test_who_is_not_known_is_refused_in_a_line(adz, ssh, url, break_it, said):
    break_it(ssh)
    done = adz("pull", "sql", "--from", url)
    assert (done.code, done.err.count("\n")) == (1, 1), done.err
    assert said in done.err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sftp://me:secret@host/path", "sftp://host/path was given with a password"),
        ("sftp://host", "names no host or no folder"),
        ("sftp:///path", "names no host or no folder"),
        ("sftp://host:port/path", "sftp://host:port/path"),
    ],
)
def test_what_is_no_address_is_a_usage_error(adz, url, said):
    done = adz("pull", "sql", "--from", url)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert said in done.err
    assert "secret" not in done.err


def test_nobody_there_is_a_line(adz, ssh):
    done = adz("pull", "sql", "--from", "sftp://127.0.0.1:1/path")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "does not answer" in done.err
