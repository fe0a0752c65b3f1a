"""Addresses, redirects, challenges and stored credentials: what is read, and what is refused."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import AdzError
from adapterhub_remotes.oci.address import follow, parse_address
from adapterhub_remotes.oci.credentials import find_credentials
from adapterhub_remotes.oci.tokens import parse_challenge


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("oci://ghcr.io/team/zoo", "https://ghcr.io", "team/zoo"),
        ("oci://Registry.example:5000/zoo/", "https://registry.example:5000", "zoo"),
        ("oci://127.0.0.1:5000/zoo", "http://127.0.0.1:5000", "zoo"),
        ("oci://localhost:5000", "http://localhost:5000", ""),
        ("oci://[::1]:5000/a", "http://[::1]:5000", "a"),
        ("oci://127.0.0.1.example/a", "https://127.0.0.1.example", "a"),
        ("oci://localhost.example/a", "https://localhost.example", "a"),
        ("oci://docker.io/ada", "https://registry-1.docker.io", "ada"),
    ],
)
def test_addresses(url: str, origin: str, path: str) -> None:
    address = parse_address(url)
    assert (address.origin, address.path) == (origin, path)
    assert address.repository("team/sql") == f"{path}/team/sql".lstrip("/")
    assert address.name_of(address.repository("team/sql")) == "team/sql"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("oci://", "names no OCI registry"),
        ("oci:///zoo", "names no OCI registry"),
        ("oci://ada:secret@host/zoo", "a password does not belong into a URL"),
        ("oci://host/zoo?x=1", "names no OCI registry"),
        ("oci://host/../zoo", "no valid path"),
        ("oci://host/Zoo", "no valid path"),
        ("oci://host:port/zoo", "is not a URL"),
        ("oci://host:99999/zoo", "is not a URL"),
        ("oci://[host/zoo", "is not a URL"),
    ],
)
def test_addresses_that_are_none(url: str, message: str) -> None:
    with pytest.raises(AdzError, match=message) as caught:
        parse_address(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["sql-", "a._b", "a..b", "A", "-a", "a.-b"])
def test_names_that_no_repository_can_have(name: str) -> None:
    with pytest.raises(AdzError):
        parse_address("oci://host/zoo").repository(name)


@pytest.mark.parametrize(
    ("origin", "location", "allowed"),
    [
        ("https://host", "https://other/x", True),
        ("https://host", "/x", True),
        ("https://host", "http://host/x", False),
        ("https://host", "http://127.0.0.1/x", False),
        ("http://127.0.0.1:5", "http://127.0.0.1:6/x", True),
        ("http://127.0.0.1:5", "http://host/x", False),
        ("http://127.0.0.1:5", "https://host/x", True),
        ("https://host", "ftp://host/x", False),
        ("https://host", "//other/x", True),
    ],
)
def test_where_a_redirect_may_lead(origin: str, location: str, allowed: bool) -> None:
    if allowed:
        assert follow(origin, origin, location)
        return
    with pytest.raises(AdzError, match="redirects to"):
        follow(origin, origin, location)


@pytest.mark.parametrize(
    ("header", "scheme", "parameters"),
    [
        (
            'Bearer realm="https://a/t",service="s p",scope="repository:x:pull,push"',
            "bearer",
            {"realm": "https://a/t", "service": "s p", "scope": "repository:x:pull,push"},
        ),
        ("Basic realm=zoo", "basic", {"realm": "zoo"}),
        ("BEARER Realm = 'x'", "bearer", {"realm": "'x'"}),
        ("", "", {}),
        ("Negotiate", "negotiate", {}),
    ],
)
def test_challenges(header: str, scheme: str, parameters: dict[str, str]) -> None:
    challenge = parse_challenge(header)
    assert (challenge.scheme, challenge.parameters) == (scheme, parameters)


def write_docker(tmp_path: Path, value: Any) -> None:
    (tmp_path / "docker").mkdir(exist_ok=True)
    text = value if isinstance(value, str) else json.dumps(value)
    (tmp_path / "docker" / "config.json").write_text(text)


def test_credentials_of_docker(tmp_path: Path) -> None:
    assert not find_credentials("host")
    auth = base64.b64encode(b"ada:se:cret").decode()
    write_docker(tmp_path, {"auths": {"host:5000": {"auth": auth}, "other": {}}})
    found = find_credentials("host:5000")
    assert (found.username, found.password) == ("ada", "se:cret")
    assert "se:cret" not in repr(found)
    assert not find_credentials("host")
    assert not find_credentials("other")


def test_a_helper_of_docker_is_named_and_not_called(tmp_path: Path) -> None:
    write_docker(tmp_path, {"credHelpers": {"host": "secretservice"}, "credsStore": "pass"})
    assert "'secretservice'" in find_credentials("host").hint
    assert "'pass'" in find_credentials("other").hint


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ({"auths": {"host": {"auth": "%%%"}}}, "a damaged entry for host")],
)
def test_a_damaged_configuration_of_docker(tmp_path: Path, content: Any, message: str) -> None:
    write_docker(tmp_path, content)
    with pytest.raises(AdzError, match=message):
        find_credentials("host")


def test_half_of_the_credentials_is_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADZ_OCI_USERNAME", "ada")
    with pytest.raises(AdzError, match="go together"):
        find_credentials("host")
