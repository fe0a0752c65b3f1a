"""Who gets our credentials, and who does not."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from adapterhub.errors import AdzError
from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry
from adapterhub_remotes.oci.remote import OciRemote

QUIET = Silent()
BASIC = "Basic " + base64.b64encode(b"ada:secret").decode()


@pytest.fixture
def ada(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADZ_OCI_USERNAME", "ada")
    monkeypatch.setenv("ADZ_OCI_PASSWORD", "secret")


def small(make_reply: Any, status: int, value: Any, **headers: str) -> Any:
    body = json.dumps(value).encode()
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    return make_reply(status, {"Content-Length": str(len(body)), **names}, body)


@pytest.mark.usefixtures("ada")
def test_bearer_tokens_by_scope(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    relay: Any,
    start_relay: Any,
    open_remote: Any,
    make_reply: Any,
    place: str,
) -> None:
    """The token service is another server; the registry never sees the password."""
    service = start_relay(None)
    given: dict[str, set[str]] = {}

    def give(asked: Any) -> Any:
        query = parse_qs(urlsplit(asked.path).query)
        assert asked.headers["authorization"] == BASIC
        assert query["service"] == ["the zoo"]
        token = f"token-{len(given)}"
        given[token] = set(query["scope"])
        return small(make_reply, 200, {"token": token})

    def demand(asked: Any) -> Any:
        repository = asked.path.removeprefix("/v2/").split("/blobs/")[0].split("/manifests/")[0]
        right = "pull" if asked.method in ("GET", "HEAD") else "pull,push"
        scope = f"repository:{repository}:{right}"
        token = asked.headers.get("authorization", "").removeprefix("Bearer ")
        rights = given.get(token, set())
        if scope in rights or scope.replace(":pull", ":pull,push") in rights:
            del asked.headers["authorization"]
            return None
        challenge = f'Bearer realm="http://127.0.0.1:{service.port}/token?x=1",service="the zoo"'
        return small(make_reply, 401, {}, WWW_Authenticate=f'{challenge},scope="{scope}"')

    service.instead, relay.instead = give, demand
    version = commit_small(sender, width=100_000)
    remote = open_remote(relay.port)
    list(push(sender, remote, ["sql"], QUIET))
    assert set().union(*given.values()) == {
        f"repository:{place}/sql:pull", f"repository:{place}/sql:pull,push",
    }  # fmt: skip
    # One token a right, whatever number of requests.
    assert len(given) == 2
    # To take a blob from another repository needs a right to both.
    commit_small(sender, "copy", width=100_000)
    list(push(sender, remote, ["copy"], QUIET))
    both = {f"repository:{place}/copy:pull,push", f"repository:{place}/sql:pull"}
    assert both in given.values()
    assert len([asked for asked in relay.asked if asked.method == "PATCH"]) == 1
    given.clear()
    receiver = open_home("receiver")
    (result,) = pull(receiver, open_remote(relay.port), ["sql@1"], QUIET)
    assert result.digest == version.digest
    assert len(given) == 1
    sent = {asked.headers.get("authorization", "") for asked in relay.asked}
    assert not any(header.startswith("Basic") for header in sent)
    # A token that is no longer good is replaced.
    remote = open_remote(relay.port)
    assert remote.find("sql", "1") is not None
    given.clear()
    assert remote.find("sql", "1") is not None


@pytest.mark.usefixtures("ada")
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_gets_no_credentials(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    relay: Any,
    start_relay: Any,
    registry_port: int,
    open_remote: Any,
    make_reply: Any,
    status: int,
) -> None:
    """Another port is another host: on one machine both are somebody's."""
    storage = start_relay(registry_port)
    version = commit_small(sender, width=100_000)
    list(push(sender, open_remote(relay.port), ["sql"], QUIET))

    def instead(asked: Any) -> Any:
        if asked.headers.pop("authorization", None) != BASIC:
            return small(make_reply, 401, {}, WWW_Authenticate='Basic realm="zoo"')
        if "/blobs/" in asked.path and asked.method == "GET":
            where = f"http://127.0.0.1:{storage.port}{asked.path}"
            return small(
                make_reply, status, {}, Location=where, Set_Cookie="session=secret; Path=/"
            )
        return None

    relay.instead = instead
    relay.asked.clear()
    receiver = open_home("receiver")
    (result,) = pull(receiver, open_remote(relay.port), ["sql@1"], QUIET)
    assert result.digest == version.digest
    assert len(storage.asked) >= 4
    for asked in storage.asked:
        assert "authorization" not in asked.headers
        assert "cookie" not in asked.headers


@pytest.mark.usefixtures("ada")
def test_another_host_cannot_ask_for_credentials(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    relay: Any,
    start_relay: Any,
    open_remote: Any,
    make_reply: Any,
) -> None:
    thief = start_relay(None)
    thief.instead = lambda asked: small(make_reply, 401, {}, WWW_Authenticate='Basic realm="zoo"')
    commit_small(sender)
    list(push(sender, open_remote(relay.port), ["sql"], QUIET))

    def instead(asked: Any) -> Any:
        if "/blobs/" in asked.path:
            where = f"http://127.0.0.1:{thief.port}{asked.path}"
            return small(make_reply, 307, {}, Location=where)
        return None

    relay.instead = instead
    receiver = open_home("receiver")
    with pytest.raises(AdzError, match="answers 401"):
        list(pull(receiver, open_remote(relay.port), ["sql@1"], QUIET))
    assert len(thief.asked) == 1
    assert "authorization" not in thief.asked[0].headers
    assert receiver.names() == []


@pytest.mark.usefixtures("ada")
def test_an_upload_elsewhere_gets_no_credentials(
    sender: Registry,
    commit_small: Any,
    relay: Any,
    start_relay: Any,
    registry_port: int,
    open_remote: Any,
    make_reply: Any,
) -> None:
    storage = start_relay(registry_port)

    def instead(asked: Any) -> Any:
        if asked.headers.pop("authorization", None) != BASIC:
            return small(make_reply, 401, {}, WWW_Authenticate='Basic realm="zoo"')
        return None

    def change(asked: Any, reply: Any) -> Any:
        for name, value in reply.headers.items():
            if name == "Location":
                reply.headers[name] = value.replace(str(relay.port), str(storage.port))
        return reply

    relay.instead, relay.change = instead, change
    commit_small(sender, width=100_000)
    list(push(sender, open_remote(relay.port), ["sql"], QUIET))
    assert {asked.method for asked in storage.asked} >= {"PATCH", "PUT"}
    assert not any("authorization" in asked.headers for asked in storage.asked)


def test_no_credentials_before_they_are_asked_for(
    sender: Registry, commit_small: Any, relay: Any, open_remote: Any, ada: None
) -> None:
    commit_small(sender)
    list(push(sender, open_remote(relay.port), ["sql"], QUIET))
    assert not any("authorization" in asked.headers for asked in relay.asked)


def test_a_busy_registry_is_waited_for_as_long_as_it_asks(
    sender: Registry, commit_small: Any, relay: Any, make_reply: Any, place: str
) -> None:
    commit_small(sender)
    answers = iter([(429, {"Retry-After": "7"}), (503, {"Retry-After": "2"}), (502, {})])
    waited: list[float] = []

    def instead(asked: Any) -> Any:
        status, headers = next(answers, (0, {}))
        return make_reply(status, {"Content-Length": "0", **headers}) if status else None

    relay.instead = instead
    url = f"oci://127.0.0.1:{relay.port}/{place}"
    (result,) = push(sender, OciRemote(url, pause=waited.append), ["sql"], QUIET)
    assert result.action == "pushed"
    assert waited[:2] == [7, 2]
    assert len(waited) == 3
    assert 2 <= waited[2] <= 3


def test_a_certificate_that_nobody_signed_is_refused(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    relay: Any,
    start_relay: Any,
    registry_port: int,
    open_remote: Any,
    make_reply: Any,
    tmp_path: Path,
) -> None:
    storage = start_relay(registry_port)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(tmp_path / "cert.pem"))
    storage.server.socket = context.wrap_socket(storage.server.socket, server_side=True)
    commit_small(sender)
    list(push(sender, open_remote(relay.port), ["sql"], QUIET))

    def instead(asked: Any) -> Any:
        if "/blobs/" in asked.path:
            where = f"https://127.0.0.1:{storage.port}{asked.path}"
            return small(make_reply, 307, {}, Location=where)
        return None

    relay.instead = instead
    receiver = open_home("receiver")
    with pytest.raises(AdzError, match="CERTIFICATE_VERIFY_FAILED"):
        list(pull(receiver, open_remote(relay.port), ["sql@1"], QUIET))
    assert storage.asked == []
    assert receiver.names() == []


def self_signed(file: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return file
