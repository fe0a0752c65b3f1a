"""A signature on its way through an OCI registry: a layer of the image, under every tag."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry
from adapterhub_remotes.oci.image import SIGNATURE
from adapterhub_remotes.oci.remote import OciRemote

QUIET = Silent()


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private and a public key."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(encoding, form))
    return private, public


def test_a_version_that_is_signed_later_is_signed_under_its_aliases_too(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    relay: Any,
    open_remote: Any,
    keys: tuple[Path, Path],
) -> None:
    private, public = keys
    version = commit_small(sender, width=100_000)
    commit_small(sender, seed=1)
    sender.tag("sql@1", "prod")
    sender.tag("sql@2", "test")
    remote = open_remote(relay.port)
    list(push(sender, remote, ["sql"], QUIET, every=True))
    assert remote.find("sql", "prod").signature is None
    relay.asked.clear()
    (result,) = push(sender, remote, ["sql@1"], QUIET, key=private)
    assert (result.action, result.signature) == ("already there", "signed")
    # No file was sent for that, and the other version is as it was.
    assert not [asked for asked in relay.asked if asked.method == "PATCH"]
    signature = remote.find("sql", "1").signature
    assert signature is not None
    assert remote.find("sql", "prod").signature == signature
    assert remote.find("sql", "2").signature is None
    assert remote.find("sql", "test").signature is None
    receiver = open_home("receiver")
    (pulled,) = pull(receiver, remote, ["sql@prod"], QUIET, keys=[public])
    assert pulled.signature == "signed by key.pub"
    assert pulled.digest == version.digest
    # From here it goes on with its signature, which nobody has to make again.
    other = OciRemote(f"{remote.url}/other")
    list(push(receiver, other, ["sql@1"], QUIET))
    assert other.find("sql", "1").signature == signature


def test_what_is_not_signed_costs_no_download(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    relay: Any,
    open_remote: Any,
    keys: tuple[Path, Path],
) -> None:
    version = commit_small(sender)
    list(push(sender, open_remote(relay.port), ["sql"], QUIET))
    relay.asked.clear()
    receiver = open_home("receiver")
    with pytest.raises(AdzError, match="is not signed") as caught:
        list(pull(receiver, open_remote(relay.port), ["sql@1"], QUIET, keys=[keys[1]]))
    assert caught.value.exit_code == EXIT_VERIFICATION
    weights = version.manifest.files["adapter_model.safetensors"].sha256
    assert not any(weights in asked.path for asked in relay.asked)
    assert receiver.names() == []


def test_a_signature_that_changed_on_the_way_is_noticed(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    relay: Any,
    open_remote: Any,
    keys: tuple[Path, Path],
) -> None:
    commit_small(sender)
    list(push(sender, open_remote(relay.port), ["sql"], QUIET, key=keys[0]))
    digests: list[str] = []

    def change(asked: Any, reply: Any) -> Any:
        if "/manifests/" in asked.path:
            layers = json.loads(reply.body)["layers"]
            digests.extend(layer["digest"] for layer in layers if layer["mediaType"] == SIGNATURE)
        if any(digest in asked.path for digest in digests):
            reply.body = reply.body[:-2] + b"x}"
        return reply

    relay.change = change
    receiver = open_home("receiver")
    with pytest.raises(AdzError, match="has other bytes than its digest says"):
        list(pull(receiver, open_remote(relay.port), ["sql@1"], QUIET, keys=[keys[1]]))
    assert digests
    assert receiver.names() == []
