"""https: the server's certificate, and the commands that ask it."""

from __future__ import annotations

import datetime
import ipaddress
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapterhub.cli.output import TerminalProgress
from adapterhub.protocols import ServeSettings

KEY = "a-key-for-the-tests"


@dataclass(frozen=True)
class Files:
    """A certificate for this machine, its key, and the authority that signed it."""

    cert: Path
    key: Path
    ca: Path


def write_key(path: Path, key: Any, password: bytes | None = None) -> Path:
    form = serialization.PrivateFormat.PKCS8
    locked = (
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption()
    )
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, locked))
    return path


def sign(subject: str, key: Any, issuer: str, issuer_key: Any, *, ca: bool) -> bytes:
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in (subject, issuer)]
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder(*reversed(names))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("https")
    authority, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    found = Files(folder / "cert.pem", write_key(folder / "key.pem", own), folder / "ca.pem")
    found.ca.write_bytes(sign("ca", authority, "ca", authority, ca=True))
    found.cert.write_bytes(sign("server", own, "ca", authority, ca=False))
    write_key(folder / "locked.pem", own, b"secret")
    write_key(folder / "other.pem", authority)
    return found


@pytest.fixture
def url(
    tiny_base: Any, commit_adapter: Any, files: Files, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The embedded engine over https. `--ca` leaves no trace after the test."""
    from adapterhub_transformers.engine import load_service, server_config

    monkeypatch.setenv("SSL_CERT_FILE", "")
    commit_adapter("sql")
    settings = ServeSettings("tiny", api_key=KEY, ssl_certfile=files.cert, ssl_keyfile=files.key)
    service = load_service(settings, TerminalProgress())
    config = server_config(service, settings)
    config.port = 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield f"https://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    server.should_exit = True
    thread.join(20)
    service.worker.stop()


def test_the_commands_ask_over_https(
    url: str, files: Files, adz: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADZ_API_KEY", KEY)
    run = ("run", "sql", "Hello", "--plain", "--max-tokens", "4", "--url", url)
    unknown = adz(*run)
    assert unknown.code == 1
    assert "CERTIFICATE_VERIFY_FAILED" in unknown.err
    assert "--ca FILE" in unknown.err
    assert "--ca FILE" in adz("chat", "sql", "--url", url).err
    answered = adz(*run, "--ca", files.ca)
    assert answered.code == 0, answered.err
    assert answered.out.strip("\n")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    scored = ("eval", "sql", "--data", rows, "--url", url, "--no-attest", "--json")
    assert adz(*scored, "--ca", files.ca).code == 0
    # What the option stands for does the same.
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    assert adz(*run).out == answered.out
    monkeypatch.delenv("ADZ_API_KEY")
    refused = adz("chat", "sql", "--url", url)
    assert (refused.code, "the API key is not right" in refused.err) == (1, True)


def test_plain_http_is_not_answered(url: str) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        httpx2.get(url.replace("https", "http") + "/models", trust_env=False)


def test_what_is_no_certificate_is_one_line(
    adz: Any, tiny_base: Any, files: Files, tmp_path: Path
) -> None:
    folder = files.cert.parent
    text = tmp_path / "text.pem"
    text.write_text("hello")
    for cert, key, words in (
        (files.cert, None, "needs both --ssl-certfile and --ssl-keyfile"),
        (None, files.key, "needs both --ssl-certfile and --ssl-keyfile"),
        (files.cert, tmp_path / "none.pem", "there is no file"),
        (tmp_path, files.key, "there is no file"),
        (files.cert, folder / "other.pem", "key values mismatch"),
        (files.cert, folder / "locked.pem", "unencrypted key"),
        (text, files.key, "are no certificate and its key"),
    ):
        options = [("--ssl-certfile", cert)] if cert else []
        options += [("--ssl-keyfile", key)] if key else []
        done = adz("serve", "--port", "18999", *(part for pair in options for part in pair))
        assert done.code in (1, 2)
        assert words in done.err
        assert done.err.count("\n") == 1


def test_what_is_no_authority_is_one_line(adz: Any, tiny_base: Any, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for file, words in ((tmp_path / "none.pem", "No such file"), (empty, "holds no certificate")):
        done = adz("run", "tiny", "x", "--url", "https://127.0.0.1:1/v1", "--ca", file)
        assert done.code == 2
        assert words in done.err
        assert done.err.count("\n") == 1
