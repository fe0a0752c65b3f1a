"""A real registry, and skopeo as an independent reader and writer."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.exchange.pull import pull
from adapterhub.exchange.push import push
from adapterhub.manifest import sha256_of
from adapterhub.merge.silent import Silent
from adapterhub.protocols import Registry
from adapterhub_remotes.oci.remote import OciRemote

QUIET = Silent()
# htpasswd -nbB ada secret, with few rounds.
ENTRY = "ada:$2b$04$YeUnu6jeCxItDwDnmexYzOx72Y13xZfcjr.9QVTx4zyQkHJvHYzMy\n"


def get(port: int, path: str) -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v2/{path}",
        headers={"Accept": "application/vnd.oci.image.manifest.v1+json"},
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        body: bytes = response.read()
        return body


def test_digests_are_those_of_the_registry(
    sender: Registry, commit_small: Any, url: str, registry_port: int, place: str
) -> None:
    version = commit_small(sender, "team/sql", width=100_000)
    sender.tag("team/sql@1", "prod")
    list(push(sender, OciRemote(url), ["team/sql@prod"], QUIET))
    repository = f"{place}/team/sql"
    image = json.loads(get(registry_port, f"{repository}/manifests/prod"))
    assert image == json.loads(get(registry_port, f"{repository}/manifests/1"))
    assert image["config"]["digest"] == version.digest
    assert get(registry_port, f"{repository}/blobs/{version.digest}") == (
        version.manifest.canonical()
    )
    titles = {
        layer["annotations"]["org.opencontainers.image.title"]: layer
        for layer in image["layers"]
        if "annotations" in layer
    }
    for name, record in version.manifest.files.items():
        assert (titles[name]["digest"], titles[name]["size"]) == (record.sha256, record.size)
        assert sha256_of(get(registry_port, f"{repository}/blobs/{record.sha256}")) == record.sha256
    assert "artifacts/deep/metrics.json" in titles
    assert image["artifactType"] == "application/vnd.adapterhub.adapter.v1"
    assert image["annotations"]["org.opencontainers.image.created"] == version.manifest.created


def test_skopeo_reads_what_we_wrote_and_we_read_what_skopeo_wrote(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    url: str,
    registry_port: int,
    place: str,
    tmp_path: Path,
    skopeo: Callable[..., str],
) -> None:
    version = commit_small(sender, width=100_000)
    list(push(sender, OciRemote(url), ["sql"], QUIET))
    layout = tmp_path / "layout"
    there = f"docker://127.0.0.1:{registry_port}/{place}"
    skopeo("copy", "--src-tls-verify=false", f"{there}/sql:1", f"oci:{layout}:1")
    for record in [*version.manifest.files.values(), *version.manifest.artifacts.values()]:
        data = (layout / "blobs" / record.sha256.replace(":", "/")).read_bytes()
        assert hashlib.sha256(data).hexdigest() == record.sha256.removeprefix("sha256:")
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][0]["digest"]
    image = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
    assert json.loads(image)["config"]["digest"] == version.digest
    skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:1", f"{there}/copy/sql:1")
    assert sha256_of(get(registry_port, f"{place}/copy/sql/manifests/1")) == digest
    receiver = open_home("receiver")
    (result,) = pull(receiver, OciRemote(f"{url}/copy"), ["sql"], QUIET)
    assert (result.action, result.digest) == ("pulled", version.digest)
    assert receiver.resolve("sql").manifest == version.manifest
    # And what is pushed again from here is the same, byte for byte.
    list(push(receiver, OciRemote(f"{url}/again"), ["sql"], QUIET))
    assert sha256_of(get(registry_port, f"{place}/again/sql/manifests/1")) == digest


def test_an_image_that_is_no_adapter_is_refused(
    sender: Registry,
    url: str,
    registry_port: int,
    place: str,
    tmp_path: Path,
    skopeo: Callable[..., str],
) -> None:
    layout = tmp_path / "image"
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    kind = "application/vnd.oci.image"
    config = put(b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}')
    image = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", **config},
        "layers": [],
    }
    entry = {"mediaType": f"{kind}.manifest.v1+json", **put(json.dumps(image).encode())}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "1"}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    target = f"docker://127.0.0.1:{registry_port}/{place}/linux:1"
    skopeo("copy", "--dest-tls-verify=false", f"oci:{layout}:1", target)
    with pytest.raises(AdzError, match="is no adapter") as caught:
        list(pull(sender, OciRemote(url), ["linux"], QUIET))
    assert caught.value.exit_code == EXIT_VERIFICATION


def test_names_and_tags_come_in_pages(
    sender: Registry, commit_small: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapterhub_remotes.oci.remote._PAGE", 2)
    for seed, name in enumerate(["a", "b", "team/a", "team/b", "c"]):
        commit_small(sender, name, seed=seed)
    for alias in ("prod", "stable", "test"):
        sender.tag("a@1", alias)
    remote = OciRemote(url)
    list(push(sender, remote, ["a", "b", "team/a", "team/b", "c"], QUIET, every=True))
    assert remote.names() == ["a", "b", "c", "team/a", "team/b"]
    assert sorted(remote.tags("a")) == ["1", "prod", "stable", "test"]
    assert remote.tags("nobody") == []
    assert remote.find("nobody", "1") is None
    assert remote.find("a", "7") is None
    assert OciRemote(f"{url}/team").names() == ["a", "b"]


def test_signatures_of_other_tools_are_no_versions(
    sender: Registry, commit_small: Any, url: str, registry_port: int, place: str
) -> None:
    version = commit_small(sender)
    list(push(sender, OciRemote(url), ["sql"], QUIET))
    body = get(registry_port, f"{place}/sql/manifests/1")
    kind = "application/vnd.oci.image.manifest.v1+json"
    for end in ("", ".sig", ".att"):
        tag = version.digest.replace(":", "-") + end
        request = urllib.request.Request(
            f"http://127.0.0.1:{registry_port}/v2/{place}/sql/manifests/{tag}",
            data=body,
            headers={"Content-Type": kind},
            method="PUT",
        )
        urllib.request.urlopen(request, timeout=20).close()
    assert OciRemote(url).tags("sql") == ["1"]


def test_a_blob_is_taken_from_another_repository(
    sender: Registry, commit_small: Any, relay: Any, open_remote: Any
) -> None:
    commit_small(sender, "a", width=100_000)
    commit_small(sender, "b", width=100_000)
    list(push(sender, open_remote(relay.port), ["a", "b"], QUIET))
    mounts = [asked.path for asked in relay.asked if "mount=" in asked.path]
    # Weights, configuration, artifact and, as both cards say something else, nothing more.
    assert len(mounts) == 3
    sent = [len(asked.body) for asked in relay.asked if asked.method in ("PATCH", "PUT")]
    assert len([size for size in sent if size > 1_000_000]) == 1


def test_an_upload_goes_on_after_a_break(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    relay: Any,
    open_remote: Any,
    make_reply: Any,
) -> None:
    """The relay hands on a half, says that the server failed, and answers for the upload."""
    state: dict[str, Any] = {}

    def instead(asked: Any) -> Any:
        if asked.method == "PATCH" and "half" not in state:
            half = asked.body[: len(asked.body) // 2]
            asked.headers["content-length"] = str(len(half))
            asked.headers.pop("content-range")
            asked.body = half
            state["half"] = len(half)
            state["reply"] = relay.forward(asked)
            return make_reply(503, {"Content-Length": "0"})
        if asked.method == "GET" and "/uploads/" in asked.path:
            headers = {k: v for k, v in state["reply"].headers.items() if k != "Content-Length"}
            return make_reply(204, headers)
        return None

    relay.instead = instead
    version = commit_small(sender, width=200_000)
    sent: list[float] = []
    progress = Counting(sent)
    (result,) = push(sender, open_remote(relay.port), ["sql"], progress)
    assert result.action == "pushed"
    patches = [asked for asked in relay.asked if asked.method == "PATCH"]
    size = version.manifest.files["adapter_model.safetensors"].size
    assert [len(asked.body) for asked in patches] == [state["half"], size - state["half"]]
    assert patches[1].headers["content-range"] == f"{state['half']}-{size - 1}"
    assert round(sum(sent) * 1e6) == result.sent
    receiver = open_home("receiver")
    relay.instead = lambda asked: None
    (pulled,) = pull(receiver, open_remote(relay.port), ["sql"], QUIET)
    assert pulled.digest == version.digest


class Counting(Silent):
    """Progress that adds up what it is told."""

    def __init__(self, sent: list[float]) -> None:
        self._sent = sent

    def advance(self, amount: float = 1, note: str = "") -> None:
        self._sent.append(amount)


def test_an_upload_that_cannot_be_taken_up_begins_again(
    sender: Registry, commit_small: Any, relay: Any, open_remote: Any, make_reply: Any
) -> None:
    failures = iter([500, 502])

    def instead(asked: Any) -> Any:
        if asked.method == "PATCH" and (status := next(failures, None)):
            return make_reply(status, {"Content-Length": "0"})
        return None

    relay.instead = instead
    commit_small(sender, width=200_000)
    (result,) = push(sender, open_remote(relay.port), ["sql"], QUIET)
    assert result.action == "pushed"


def test_a_download_goes_on_after_a_break(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    relay: Any,
    open_remote: Any,
    quick: Any,
) -> None:
    version = commit_small(sender, width=200_000)
    list(push(sender, open_remote(relay.port), ["sql"], QUIET))
    digest = version.manifest.files["adapter_model.safetensors"].sha256
    cut = iter([True])

    def change(asked: Any, reply: Any) -> Any:
        if digest in asked.path and next(cut, False):
            reply.body = reply.body[:2_000_000]
        return reply

    relay.change = change
    relay.asked.clear()
    receiver = open_home("receiver")
    (result,) = pull(receiver, open_remote(relay.port), ["sql"], QUIET, bounds=quick)
    assert result.action == "pulled"
    ranges = [asked.headers.get("range") for asked in relay.asked if digest in asked.path]
    assert ranges == [None, "bytes=2000000-"]


def test_a_server_without_ranges_is_read_from_the_start(
    sender: Registry,
    open_home: Callable[[str], Registry],
    commit_small: Any,
    relay: Any,
    open_remote: Any,
    quick: Any,
) -> None:
    version = commit_small(sender, width=200_000)
    list(push(sender, open_remote(relay.port), ["sql"], QUIET))
    digest = version.manifest.files["adapter_model.safetensors"].sha256
    cut = iter([True])

    def without_range(asked: Any) -> Any:
        asked.headers.pop("range", None)

    def change(asked: Any, reply: Any) -> Any:
        if digest in asked.path and next(cut, False):
            reply.body = reply.body[:2_000_000]
        return reply

    relay.instead, relay.change = without_range, change
    (result,) = pull(open_home("r"), open_remote(relay.port), ["sql"], QUIET, bounds=quick)
    assert (result.action, result.digest) == ("pulled", version.digest)


@pytest.mark.parametrize("way", ["environment", "docker login"])
def test_a_registry_with_passwords(
    sender: Registry,
    commit_small: Any,
    start_registry: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    (tmp_path / "htpasswd").write_text(ENTRY)
    port = start_registry(
        f"auth: {{{{htpasswd: {{{{realm: test, path: {tmp_path}/htpasswd}}}}}}}}\n"
    )
    commit_small(sender)
    url = f"oci://127.0.0.1:{port}/zoo"
    with pytest.raises(AdzError, match="refuses /v2/zoo/sql/") as caught:
        list(push(sender, OciRemote(url), ["sql"], QUIET))
    assert "docker login" in caught.value.hint
    if way == "environment":
        monkeypatch.setenv("ADZ_OCI_USERNAME", "ada")
        monkeypatch.setenv("ADZ_OCI_PASSWORD", "secret")
    else:
        auth = base64.b64encode(b"ada:secret").decode()
        (tmp_path / "docker").mkdir()
        (tmp_path / "docker" / "config.json").write_text(
            json.dumps({"auths": {f"127.0.0.1:{port}": {"auth": auth}}})
        )
    (result,) = push(sender, OciRemote(url), ["sql"], QUIET)
    assert result.action == "pushed"
    monkeypatch.setenv("ADZ_OCI_USERNAME", "ada")
    monkeypatch.setenv("ADZ_OCI_PASSWORD", "wrong")
    with pytest.raises(AdzError, match="refuses") as caught:
        OciRemote(url).find("sql", "1")
    assert "wrong" not in str(caught.value)


def test_a_registry_may_take_its_time_to_store(
    sender: Registry, commit_small: Any, relay: Any, open_remote: Any
) -> None:
    def change(asked: Any, reply: Any) -> Any:
        if asked.method == "PUT":
            time.sleep(0.6)
        return reply

    relay.change = change
    commit_small(sender, width=100_000)
    (result,) = push(sender, open_remote(relay.port, 0.3), ["sql"], QUIET)
    assert result.action == "pushed"
    assert len([asked for asked in relay.asked if asked.method == "PATCH"]) == 1


@pytest.mark.parametrize("status", [403, 405])
def test_where_a_blob_cannot_be_asked_for_it_is_sent(
    sender: Registry,
    commit_small: Any,
    relay: Any,
    start_relay: Any,
    open_remote: Any,
    make_reply: Any,
    status: int,
) -> None:
    storage = start_relay(None)
    storage.instead = lambda asked: make_reply(status, {"Content-Length": "0"})

    def instead(asked: Any) -> Any:
        if asked.method == "HEAD":
            where = f"http://127.0.0.1:{storage.port}{asked.path}"
            return make_reply(307, {"Content-Length": "0", "Location": where})
        return None

    relay.instead = instead
    commit_small(sender)
    (result,) = push(sender, open_remote(relay.port), ["sql"], QUIET)
    assert (result.action, result.sent) == ("pushed", result.size)
