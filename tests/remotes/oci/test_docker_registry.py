"""A real registry, and skopeo as an independent reader and writer."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
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


def test_the_licence_of_an_imported_readme_is_told(
    sender: Registry, commit_small: Any, url: str, registry_port: int, place: str, tmp_path: Path
) -> None:
    bare = commit_small(sender)
    payload = tmp_path / "licensed"
    shutil.copytree(sender.path(bare), payload, copy_function=shutil.copyfile)
    (payload / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Mine\n")
    manifest = bare.manifest.model_copy(update={"name": "licensed"})
    licensed = sender.commit(manifest, payload)
    list(push(sender, OciRemote(url), ["sql", "licensed"], QUIET))
    without, with_licence = (
        json.loads(get(registry_port, f"{place}/{name}/manifests/1"))
        for name in ("sql", "licensed")
    )
    key = "org.opencontainers.image.licenses"
    assert key not in without["annotations"]
    assert with_licence["annotations"][key] == "apache-2.0"
    card = next(layer for layer in with_licence["layers"] if "card" in layer["mediaType"])
    text = get(registry_port, f"{place}/licensed/blobs/{card['digest']}").decode()
    assert "license: apache-2.0\n" in text.split("\n---")[0]
    assert licensed.digest in text
