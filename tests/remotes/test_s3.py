"""A bucket: s3fs against a local server that speaks S3's API, and boto3 as another reader."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from moto.server import ThreadedMotoServer
from safetensors.numpy import save_file

from adapterhub.errors import AdzError
from adapterhub.exchange.remotes import open_remote
from adapterhub.manifest import FileRecord, sha256_of
from adapterhub.plugins import open_registry
from adapterhub.protocols import RemoteFile, RemoteVersion
from adapterhub.testing import RemoteConformance
from adapterhub_remotes.files import FilesRemote

MANIFEST = b'{"name":"sql"}'


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An empty bucket `adapters` as boto3 sees it; the environment leads s3fs there."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    found = boto3.resource("s3").create_bucket(Bucket="adapters")
    found.objects.delete()
    return found


class TestS3(RemoteConformance):
    """A bucket is what every remote promises to be."""

    name = "files"

    @pytest.fixture(autouse=True)
    def empty(self, bucket: Any) -> None:
        """Each test has an empty bucket."""

    def url(self, folder: Path) -> str:
        return "s3://adapters/share"


def test_what_was_written_is_read_from_any_offset(bucket: Any, tmp_path: Path) -> None:
    data = os.urandom(9 * 2**20 + 5)
    source = tmp_path / "weights"
    source.write_bytes(data)
    file = RemoteFile("adapter_model.safetensors", FileRecord(sha256=sha256_of(data), size=9437189))
    remote = open_remote("s3://adapters/team/")
    sent: list[int] = []
    assert not remote.contains("sql", file)
    remote.write("sql", file, source, sent.append)
    assert sum(sent) == len(data)
    assert remote.contains("sql", file)
    key = f"team/blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    assert [item.key for item in bucket.objects.all()] == [key]
    assert bucket.Object(key).get()["Body"].read() == data
    version = RemoteVersion(MANIFEST)
    for offset in (0, 4 * 2**20 + 1, len(data) - 1, len(data)):
        assert b"".join(remote.read("sql", version, file, offset)) == data[offset:]


def test_versions_are_listed_and_found_at_once(bucket: Any) -> None:
    remote, other = (FilesRemote("s3://adapters/team") for _ in range(2))
    assert (other.names(), other.tags("sql"), other.find("sql", "7")) == ([], [], None)
    remote.publish("team/sql", RemoteVersion(MANIFEST, b"sig"), ["7", "prod"], "# card")
    # No cache of an earlier listing stands in between.
    assert (other.names(), other.tags("team/sql")) == (["team/sql"], ["7", "prod"])
    found = other.find("team/sql", "prod")
    assert found is not None
    assert (found.manifest, found.signature) == (MANIFEST, b"sig")
    card = bucket.Object("team/names/team/sql/README.md").get()["Body"].read()
    assert card == b"# card"
    with pytest.raises(AdzError, match="team/sql@7 is another version in s3://adapters/team"):
        remote.publish("team/sql", RemoteVersion(b"other"), ["7"], "")


def test_of_eight_writers_of_a_number_one_wins(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All look before any of them writes: the condition of the upload must decide.
    remotes = [FilesRemote("s3://adapters") for _ in range(8)]
    outcomes: list[str] = []
    start = threading.Barrier(8)
    look = remotes[0]._store.size

    def wait(path: str) -> int | None:
        found = look(path)
        start.wait(timeout=30)
        return found

    def publish(index: int) -> None:
        try:
            monkeypatch.setattr(remotes[index]._store, "size", wait)
            remotes[index].publish("sql", RemoteVersion(b"%d" % index), ["7"], "")
            outcomes.append(str(index))
        except AdzError as error:
            outcomes.append(error.message)

    threads = [threading.Thread(target=publish, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = remotes[0].find("sql", "7")
    assert found is not None
    assert outcomes.count("sql@7 is another version in s3://adapters") == 7
    assert found.manifest.decode() in outcomes


def test_what_is_wrong_is_one_line(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AdzError, match="s3://nowhere cannot be written: ") as caught:
        open_remote("s3://nowhere").publish("sql", RemoteVersion(MANIFEST), ["1"], "")
    assert "bucket does not exist" in caught.value.message
    assert open_remote("s3://nowhere").find("sql", "1") is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(AdzError, match="s3://adapters cannot be read: ") as caught:
        open_remote("s3://adapters").find("sql", "1")
    assert "\n" not in str(caught.value)
    assert "testing" not in str(caught.value)


def test_the_endpoint_comes_from_fsspec_too(bucket: Any, server: str) -> None:
    code = (
        "from adapterhub.exchange.remotes import open_remote\n"
        "from adapterhub.protocols import RemoteVersion\n"
        "open_remote('s3://adapters').publish('sql', RemoteVersion(b'x'), ['1'], '')\n"
    )
    environment = {**os.environ, "FSSPEC_S3_ENDPOINT_URL": server}
    del environment["AWS_ENDPOINT_URL"]
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=60)
    assert {item.key for item in bucket.objects.all()} >= {"names/sql/_tags/1"}


def test_push_and_pull_through_a_bucket(
    adz: Any, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    random = np.random.default_rng(0)
    directory = tmp_path / "adapter"
    directory.mkdir()
    tensors = {
        f"{module}.lora_A.weight": random.normal(size=(2, 8)).astype(np.float32),
        f"{module}.lora_B.weight": random.normal(size=(8, 2)).astype(np.float32),
    }
    save_file(tensors, directory / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    assert adz("import", directory, "--name", "team/sql").code == 0
    assert adz("tag", "team/sql@1", "prod").code == 0
    pushed = adz("push", "team/sql@prod", "--to", "s3://adapters/zoo")
    assert pushed.code == 0, pushed.err
    first = open_registry().resolve("team/sql")
    monkeypatch.setenv("ADZ_HOME", str(tmp_path / "elsewhere"))
    pulled = adz("pull", "team/sql@prod", "--from", "s3://adapters/zoo")
    assert pulled.code == 0, pulled.err
    second = open_registry().resolve("team/sql@prod")
    assert (second.digest, second.number) == (first.digest, 1)
    # A flipped bit in the bucket is found.
    digest = second.manifest.files["adapter_model.safetensors"].sha256.removeprefix("sha256:")
    blob = bucket.Object(f"zoo/blobs/sha256/{digest}")
    data = bytearray(blob.get()["Body"].read())
    data[-1] ^= 1
    blob.put(Body=bytes(data))
    monkeypatch.setenv("ADZ_HOME", str(tmp_path / "third"))
    refused = adz("pull", "team/sql", "--from", "s3://adapters/zoo")
    assert refused.code == 3
    assert open_registry().names() == []
