"""What a user of a remote relies on."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from adapterhub import specs
from adapterhub.errors import AdzError
from adapterhub.exchange.remotes import open_remote
from adapterhub.manifest import BaseLink, FileRecord, Manifest, payload_digest, sha256_of
from adapterhub.protocols import Remote, RemoteFile, RemoteVersion
from adapterhub.testing.conformance.base import (
    Conformance,
    check_refusal,
    check_success,
    text_raised,
)
from adapterhub.testing.fixtures import Adz

_DATA = bytes(range(256)) * 300


class RemoteConformance(Conformance):
    """Of a remote: `name = "mine"`, and `url`.

    numbers_are_final: whether it refuses another version under a number that is taken. One that
    cannot know leaves that to `adz push`, which looks before and after.
    can_list: whether it can say which adapters it holds.
    """

    kind: ClassVar[type[specs.Component]] = specs.Remote
    numbers_are_final: ClassVar[bool] = True
    can_list: ClassVar[bool] = True

    def url(self, folder: Path) -> str:
        """The URL of an empty place; `folder` is a fresh directory for it."""
        raise NotImplementedError("say where: def url(self, folder): return f'mine://{folder}'")

    def open(self, folder: Path) -> Remote:
        """The remote at `url`, found by its scheme."""
        return open_remote(self.url(folder))

    def write(
        self,
        remote: Remote,
        folder: Path,
        data: bytes = _DATA,
        name: str = "adapter_model.safetensors",
    ) -> RemoteFile:
        """Upload one file of the adapter `sql`."""
        path = folder / "upload.bin"
        path.write_bytes(data)
        file = RemoteFile(name, FileRecord(sha256=sha256_of(data), size=len(data)))
        remote.write("sql", file, path, lambda count: None)
        return file

    def test_its_schemes_open_it(self, tmp_path: Path) -> None:
        """The URL's beginning is one of the descriptor's."""
        scheme = self.url(tmp_path).partition("://")[0]
        assert scheme in self.component.schemes, f"{scheme} is not in {self.component.schemes}"
        opened = self.open(tmp_path)
        assert opened.url.partition("://")[0] == scheme, f"its url is {opened.url}"

    def test_nothing_is_there_at_first(self, tmp_path: Path) -> None:
        """Absence is None or empty, not an error."""
        remote = self.open(tmp_path)
        assert remote.find("sql", "1") is None
        assert list(remote.tags("sql")) == []
        file = RemoteFile("adapter_config.json", FileRecord(sha256=sha256_of(b"x"), size=1))
        assert not remote.contains("sql", file), "it contains a file that nobody wrote"

    def test_bytes_come_back_from_any_offset(self, tmp_path: Path) -> None:
        """A download that broke off goes on; progress counts each byte once."""
        remote = self.open(tmp_path)
        sent: list[int] = []
        path = tmp_path / "upload.bin"
        path.write_bytes(_DATA)
        file = RemoteFile(
            "adapter_model.safetensors", FileRecord(sha256=sha256_of(_DATA), size=len(_DATA))
        )
        remote.write("sql", file, path, sent.append)
        assert sum(sent) == len(_DATA), f"{sum(sent)} bytes were told, {len(_DATA)} sent"
        version = RemoteVersion(_manifest("sql", 1, file))
        remote.publish("sql", version, ["1"], "# sql")
        found = remote.find("sql", "1")
        assert found is not None, "what was published is not found"
        for offset in (0, 1, 4096, len(_DATA) - 1):
            # Outside of the assertion, where pytest would draw the difference of the two.
            same = b"".join(remote.read("sql", found, file, offset)) == _DATA[offset:]
            assert same, f"read from {offset} on gives other bytes"

    def test_a_version_appears_whole(self, tmp_path: Path) -> None:
        """Until it is published nobody finds it; then under each of its tags."""
        remote = self.open(tmp_path)
        file = self.write(remote, tmp_path)
        assert remote.find("sql", "1") is None, "a version is found before it is published"
        version = RemoteVersion(_manifest("sql", 1, file), b"a signature")
        remote.publish("sql", version, ["1", "prod"], "# sql")
        for tag in ("1", "prod"):
            found = remote.find("sql", tag)
            assert found is not None, f"sql@{tag} is not found"
            assert found.manifest == version.manifest, "the manifest's bytes changed"
            assert found.signature == version.signature, "the signature's bytes changed"
        assert sorted(remote.tags("sql")) == ["1", "prod"]
        assert remote.find("sql", "2") is None

    def test_an_alias_moves_and_a_number_stays(self, tmp_path: Path) -> None:
        """A second version takes the alias; a number means one version for ever."""
        remote = self.open(tmp_path)
        file = self.write(remote, tmp_path)
        first, second = (RemoteVersion(_manifest("sql", n, file)) for n in (1, 2))
        remote.publish("sql", first, ["1", "prod"], "# sql")
        remote.publish("sql", second, ["2", "prod"], "# sql")
        found = {tag: remote.find("sql", tag) for tag in ("1", "2", "prod")}
        there = {tag: version.manifest for tag, version in found.items() if version}
        assert there.get("prod") == second.manifest, "the alias did not move"
        assert there.get("1") == first.manifest, "number 1 means another version now"
        if self.numbers_are_final:
            rival = RemoteVersion(_manifest("sql", 1, file, method="dora"))
            text_raised(
                AdzError,
                lambda: remote.publish("sql", rival, ["1"], "# sql"),
                "a number that is taken was given to another version",
            )

    def test_threads_share_it(self, tmp_path: Path) -> None:
        """Files of a version are written from several threads at once."""
        remote = self.open(tmp_path)
        folders = [tmp_path / str(n) for n in range(8)]
        for folder in folders:
            folder.mkdir()
        datas = [bytes([n]) * 5000 for n in range(8)]
        names = [f"part-{n}.safetensors" for n in range(8)]
        with ThreadPoolExecutor(8) as pool:
            files = list(pool.map(self.write, [remote] * 8, folders, datas, names))
        remote.publish("sql", RemoteVersion(_manifest("sql", 1, *files)), ["1"], "# sql")
        found = remote.find("sql", "1")
        assert found is not None, "what was published is not found"
        for file, data in zip(files, datas, strict=True):
            same = b"".join(remote.read("sql", found, file, 0)) == data
            assert same, f"{file.name} has other bytes than a thread wrote"

    def test_adz_pushes_and_pulls(
        self,
        adz: Adz,
        tiny_adapters: list[Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Into another home: the same digest, and its alias; a dry run moves nothing."""
        url, home = self.url(tmp_path), tmp_path / "other-home"
        check_success(adz("tag", "tiny-a", "prod"))
        check_success(adz("push", "tiny-a@prod", "--to", url, "--dry-run"))
        check_refusal(adz("pull", "tiny-a", "--from", url))
        check_success(adz("push", "tiny-a@prod", "--to", url))
        again = json.loads(check_success(adz("push", "tiny-a", "--to", url, "--json")))
        assert again[0]["action"] == "already there", "a second push sends it again"
        monkeypatch.setenv("ADZ_HOME", str(home))
        check_success(adz("pull", "tiny-a@prod", "--from", url))
        shown = json.loads(check_success(adz("show", "tiny-a@prod", "--json")))
        assert shown["digest"] == tiny_adapters[0].digest, "another version came back"

    def test_names_are_listed(self, adz: Adz, tiny_adapters: list[Any], tmp_path: Path) -> None:
        """`adz ls --remote URL`; one that cannot list says so with AdzError."""
        url = self.url(tmp_path)
        check_success(adz("push", "tiny-a", "tiny-b", "--to", url))
        if self.can_list:
            assert sorted(open_remote(url).names()) == ["tiny-a", "tiny-b"]
        else:
            text_raised(AdzError, open_remote(url).names, "can_list is False, and it lists")

    def test_what_it_refuses_is_one_line(self, adz: Adz, tmp_path: Path) -> None:
        """A name that is not there."""
        check_refusal(adz("pull", "nobody", "--from", self.url(tmp_path)))


def _manifest(name: str, number: int, *files: RemoteFile, method: str = "lora") -> bytes:
    # Some remotes read it, and describe what they store by it.
    records = {file.name: file.record for file in files}
    manifest = Manifest(
        name=name,
        version=number,
        method=method,
        made_by="import",
        base=BaseLink(status="unknown"),
        prompt_format="plain",
        adapter={"rank": 8},
        files=records,
        payload=payload_digest(records),
    )
    return manifest.canonical()
