"""The Hub as a remote: one commit a version, read by huggingface_hub and by PEFT alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from adapterhub.errors import AdzError
from adapterhub.exchange.remotes import open_remote
from adapterhub.manifest import BaseLink, Manifest, Version, payload_digest, sha256_of
from adapterhub.manifest import FileRecord as Record
from adapterhub.plugins import open_registry
from adapterhub.protocols import Remote, RemoteFile, RemoteVersion, TransferInterruptedError
from adapterhub_remotes import hub_access

WEIGHTS = os.urandom(3 * 2**20)
CARD = "---\ntags:\n- adapterhub\n---\n# card\n"


@pytest.fixture
def remote(home: Path, hub: Any) -> Remote:
    return open_remote("hub://org")


class Made:
    """A version as its bytes, without a registry."""

    def __init__(self, tmp_path: Path, number: int, files: dict[str, bytes], name: str) -> None:
        self.name = name
        self.contents = files
        records = {n: Record(sha256=sha256_of(d), size=len(d)) for n, d in files.items()}
        payload = {n: r for n, r in records.items() if not n.startswith("artifacts/")}
        manifest = Manifest(
            name=name,
            version=number,
            method="lora",
            made_by="train",
            base=BaseLink(status="unknown"),
            files=payload,
            artifacts={
                n.removeprefix("artifacts/"): r for n, r in records.items() if n not in payload
            },
            payload=payload_digest(payload),
        )
        self.manifest = manifest.canonical()
        self.files = [RemoteFile(n, r) for n, r in records.items()]
        self._folder = tmp_path

    def write(self, remote: Remote) -> None:
        """Upload from sources that are gone afterwards, equal bytes once."""
        for file in {f.record.sha256: f for f in self.files}.values():
            if not remote.contains(self.name, file):
                source = self._folder / "source"
                source.write_bytes(self.contents[file.name])
                remote.write(self.name, file, source, lambda count: None)
                source.unlink()

    def push(self, remote: Remote, *aliases: str, signature: bytes | None = None) -> None:
        number = str(json.loads(self.manifest)["version"])
        remote.find(self.name, number)
        self.write(remote)
        remote.publish(self.name, RemoteVersion(self.manifest, signature), [number, *aliases], CARD)

    def check(self, remote: Remote, tag: str) -> RemoteVersion:
        """Find it under the tag, and read each file."""
        found = remote.find(self.name, tag)
        assert found is not None
        assert found.manifest == self.manifest
        for file in self.files:
            data = b"".join(remote.read(self.name, found, file, 0))
            assert data == self.contents[file.name], file.name
        return found


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Made]:
    def run(number: int = 7, seed: bytes = b"", name: str = "sql", **files: bytes) -> Made:
        contents = {
            "adapter_config.json": b'{"r": 4}',
            "adapter_model.safetensors": WEIGHTS + seed,
            "artifacts/curve.csv": b"1\n2\n",
            **{path.replace("__", "."): data for path, data in files.items()},
        }
        return Made(tmp_path, number, contents, name)

    return run


def test_huggingface_hub_alone_reads_a_version(
    remote: Remote, hub: Any, make: Callable[..., Made], tmp_path: Path
) -> None:
    made = make()
    made.push(remote, "prod", signature=b"signed")
    for revision in (None, "v7", "prod"):
        folder = huggingface_hub.snapshot_download(
            "org/sql", revision=revision, cache_dir=tmp_path / f"cache-{revision}"
        )
        there = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in Path(folder).rglob("*")
            if path.is_file()
        }
        assert there == {
            **made.contents,
            "adapterhub.json": made.manifest,
            "adapterhub.sig": b"signed",
            "README.md": CARD.encode(),
            ".gitattributes": there[".gitattributes"],
        }
    path = huggingface_hub.hf_hub_download(
        "org/sql", "adapter_model.safetensors", revision="v7", cache_dir=tmp_path / "one"
    )
    assert Path(path).read_bytes() == WEIGHTS


def test_what_was_pushed_is_found_and_read(remote: Remote, make: Callable[..., Made]) -> None:
    assert (remote.names(), remote.tags("sql"), remote.find("sql", "7")) == ([], [], None)
    made = make()
    made.push(remote, "prod", signature=b"signed")
    make(name="team/french").push(remote)
    other = open_remote("hub://org")
    assert other.names() == ["sql", "team/french"]
    assert other.tags("sql") == ["7", "prod"]
    assert made.check(other, "7").signature == b"signed"
    assert made.check(other, "prod").signature == b"signed"
    assert make(name="team/french").check(other, "7").signature is None
    assert other.find("sql", "8") is None
    assert other.find("sql", "main") is None


def test_a_version_is_one_commit_and_invisible_before(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    first, second = make(7), make(8, b"more")
    first.push(remote)
    repo = hub.repositories["org/sql"]
    before = dict(repo.commits)
    second.write(remote)
    assert repo.commits == before
    assert open_remote("hub://org").find("sql", "8") is None
    second.push(remote)
    assert len(repo.commits) == len(before) + 1
    assert repo.branches["main"] == repo.tags["v8"] != repo.tags["v7"]
    first.check(remote, "7")
    second.check(remote, "8")


def test_a_repository_is_private(
    remote: Remote, hub: Any, make: Callable[..., Made], set_token: Callable[..., None]
) -> None:
    make().push(remote)
    assert hub.repositories["org/sql"].private
    set_token(None)
    assert open_remote("hub://org").find("sql", "7") is None
    assert open_remote("hub://org").names() == []


def test_files_of_an_earlier_version_do_not_stay(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    make(7, README__md=b"# mine", notes__txt=b"x").push(remote, signature=b"signed")
    make(8).push(remote)
    repo = hub.repositories["org/sql"]
    tree = repo.commits[repo.tags["v8"]]
    assert set(tree) == {
        ".gitattributes",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "adapterhub.json",
        "artifacts/curve.csv",
    }
    assert tree["README.md"].data == CARD.encode()
    # The README of a payload is the payload's, byte by byte.
    assert repo.commits[repo.tags["v7"]]["README.md"].data == b"# mine"


def test_an_older_version_that_comes_later_leaves_main_alone(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    newer, older = make(9, b"nine"), make(7)
    newer.push(remote)
    repo = hub.repositories["org/sql"]
    main = repo.branches["main"]
    older.push(remote, "stable")
    assert repo.branches == {"main": main}
    newer.check(remote, "9")
    older.check(remote, "7")
    older.check(remote, "stable")


def test_the_same_version_again_writes_nothing(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    make().push(remote, "prod")
    commits = dict(hub.repositories["org/sql"].commits)
    again = open_remote("hub://org")
    hub.requests.clear()
    make().push(again, "prod")
    assert hub.repositories["org/sql"].commits == commits
    assert not [r for r in hub.requests if "preupload" in r[1] or "/commit/" in r[1]]


def test_an_alias_moves(remote: Remote, hub: Any, make: Callable[..., Made]) -> None:
    first, second = make(1), make(2, b"more")
    first.push(remote, "prod")
    second.push(remote, "prod")
    second.check(remote, "prod")
    commits = dict(hub.repositories["org/sql"].commits)
    # Back again, to a version that is there already.
    other = open_remote("hub://org")
    assert all(other.contains("sql", file) for file in first.files) is False
    other.find("sql", "1")
    assert all(other.contains("sql", file) for file in first.files)
    other.publish("sql", RemoteVersion(first.manifest), ["prod"], CARD)
    first.check(other, "prod")
    assert hub.repositories["org/sql"].commits == commits


def test_a_signature_is_added_to_a_version_that_is_there(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    old, new = make(7), make(8, b"more")
    old.push(remote)
    new.push(remote)
    main = hub.repositories["org/sql"].branches["main"]
    old.push(open_remote("hub://org"), signature=b"signed")
    assert old.check(remote, "7").signature == b"signed"
    assert hub.repositories["org/sql"].branches == {"main": main}
    # Nor is it lost when the version is pushed without it.
    old.push(open_remote("hub://org"))
    assert old.check(remote, "7").signature == b"signed"


def test_another_version_of_the_number_is_refused(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    make(7).push(remote)
    commits = dict(hub.repositories["org/sql"].commits)
    with pytest.raises(AdzError, match="version 7 in org/sql is another one") as caught:
        make(7, b"other").push(open_remote("hub://org"))
    assert caught.value.exit_code == 3
    assert hub.repositories["org/sql"].commits == commits


def test_equal_files_under_two_names(remote: Remote, make: Callable[..., Made]) -> None:
    more = {"artifacts/moments__safetensors": WEIGHTS}
    made = make(twin__json=b'{"r": 4}', copy__safetensors=WEIGHTS, **more)
    made.push(remote)
    made.check(open_remote("hub://org"), "7")


def test_a_push_that_was_cut_off_goes_on(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    made = make()
    made.write(remote)
    hub.requests.clear()
    made.push(open_remote("hub://org"))
    # The large file is there: it is not sent again.
    assert not [r for r in hub.requests if r[0] == "PUT"]
    made.check(remote, "7")


def test_a_file_is_read_from_any_offset(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    made = make()
    made.push(remote)
    found = remote.find("sql", "7")
    assert found is not None
    config, weights = (
        next(f for f in made.files if f.name == n)
        for n in ("adapter_config.json", "adapter_model.safetensors")
    )
    for knows_ranges in (True, False):
        hub.knows_ranges = knows_ranges
        for offset in (0, 1, 2**20 + 1, len(WEIGHTS) - 1, len(WEIGHTS)):
            chunks = list(remote.read("sql", found, weights, offset))
            assert b"".join(chunks) == WEIGHTS[offset:]
            assert max(map(len, chunks), default=0) <= 2**20
        assert b"".join(remote.read("sql", found, config, 3)) == b'{"r": 4}'[3:]


def test_the_token_does_not_go_to_another_host(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    made = make()
    made.push(remote)
    made.check(remote, "7")
    assert hub.tokens_at_storage
    assert set(hub.tokens_at_storage) == {None}


def test_a_break_can_be_taken_up(remote: Remote, hub: Any, make: Callable[..., Made]) -> None:
    made = make()
    made.push(remote)
    found = remote.find("sql", "7")
    assert found is not None
    weights = next(f for f in made.files if f.name == "adapter_model.safetensors")
    hub.break_after, hub.breaks = 2**20 + 100, 1
    data = bytearray()

    def read() -> None:
        for chunk in remote.read("sql", found, weights, len(data)):
            data.extend(chunk)

    with pytest.raises(TransferInterruptedError):
        read()
    assert 0 < len(data) <= 2**20 + 100
    read()
    assert bytes(data) == WEIGHTS
    hub.faults.append(fault("GET", "/storage/", 503))
    with pytest.raises(TransferInterruptedError, match="the Hub answers 503"):
        list(remote.read("sql", found, weights, 0))


def fault(method: str, path: str, status: int, times: int = 1) -> Any:
    from hub_server import Fault

    return Fault(method, path, status, times)


def test_someone_else_commits_at_the_same_time(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    make(1).push(remote)
    made = make(2, b"more")
    hub.before_commit = lambda: hub.put("org/sql", {"notes.txt": b"theirs"})
    with pytest.raises(AdzError, match=r"412.*try again"):
        made.push(remote)
    assert "v2" not in hub.repositories["org/sql"].tags
    made.push(remote)
    made.check(remote, "2")


def test_a_commit_that_is_not_what_was_pushed_gets_no_tag(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    """Between the upload and the commit `main` changed back and forth: huggingface_hub leaves
    out the file that it believes to be there."""
    make(1).push(remote)
    made = make(2)
    made.write(open_remote("hub://org"))
    late = open_remote("hub://org")
    made.write(late)
    hub.put("org/sql", {"adapter_model.safetensors": b"theirs"})
    with pytest.raises(AdzError, match="is not what was pushed") as caught:
        late.publish("sql", RemoteVersion(made.manifest), ["2"], CARD)
    assert caught.value.exit_code == 3
    assert "v2" not in hub.repositories["org/sql"].tags
    made.push(open_remote("hub://org"))
    made.check(remote, "2")


def test_tags_and_commits_of_others_are_no_versions(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    sha = hub.put("org/theirs", {"README.md": CARD.encode(), "x": b""})
    hub.repositories["org/theirs"].tags |= {"v1": sha, "prod": sha}
    assert remote.find("theirs", "1") is None
    assert remote.find("theirs", "prod") is None
    hub.put("org/--Odd", {"adapterhub.json": b"{}"})
    assert remote.names() == []
    # A payload's own README need not say whose it is.
    make(README__md=b"# mine").push(remote)
    assert remote.names() == ["sql"]


def test_a_prefix_keeps_apart(remote: Remote, make: Callable[..., Made]) -> None:
    adapters = open_remote("hub://org/adapters")
    make(7).push(adapters)
    assert adapters.names() == ["sql"]
    assert adapters.tags("sql") == ["7"]
    assert remote.tags("sql") == []
    assert remote.names() == ["adapters-sql"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("a--b", "'--'"), ("sql-", "at the end"), ("../x", "is not a valid name")],
)
def test_names_that_the_hub_does_not_take(remote: Remote, name: str, message: str) -> None:
    with pytest.raises(AdzError, match=message) as caught:
        remote.tags(name)
    assert caught.value.exit_code == 2


def test_an_alias_that_looks_like_a_number_is_refused(remote: Remote) -> None:
    with pytest.raises(AdzError, match="the alias v7 cannot go to the Hub"):
        remote.find("sql", "v7")


@pytest.mark.parametrize(
    "url", ["hub://", "hub:///x", "hub://a/b/c", "hub://me@org", "hub://o/ö ä"]
)
def test_urls_that_name_no_organisation(home: Path, url: str) -> None:
    with pytest.raises(AdzError, match="names no organisation"):
        open_remote(url)


def test_errors_are_one_line_with_what_to_do(
    remote: Remote,
    hub: Any,
    make: Callable[..., Made],
    set_token: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(call: Callable[[], object], *parts: str) -> None:
        with pytest.raises(AdzError) as caught:
            call()
        text = str(caught.value)
        assert "\n" not in text
        assert "hf_" not in text
        for part in parts:
            assert part in text, text

    make().push(remote)
    forbidden = open_remote("hub://forbidden")
    refused(lambda: make().push(forbidden), "403", "don't have the rights", "check its rights")
    set_token("hf_wrong")
    refused(lambda: open_remote("hub://org").find("sql", "7"), "401", "hf auth login")
    set_token(None)
    refused(lambda: make(name="new").push(open_remote("hub://org")), "401", "hf auth login")
    set_token("hf_testing")
    hub.faults.append(fault("GET", "/refs", 500))
    refused(lambda: open_remote("hub://org").find("sql", "7"), "500", "try again later")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    refused(lambda: open_remote("hub://org").tags("sql"), "cannot be reached", "HF_ENDPOINT")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused(lambda: open_remote("hub://org").tags("sql"), "HF_HUB_OFFLINE is set")


def test_a_hub_that_never_answers_is_an_error(
    remote: Remote, hub: Any, make: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    make().push(remote)
    found = remote.find("sql", "7")
    assert found is not None
    huggingface_hub.utils.close_session()
    monkeypatch.setattr(hub_access, "_PATIENCE", httpx2.Timeout(0.3))
    monkeypatch.setattr(hub_access, "_TIMEOUT_SECONDS", 0.3)
    hub.faults += [fault("GET", "/refs", 0), fault("GET", "/storage/", 0)]
    with pytest.raises(AdzError, match="org/sql cannot be reached: "):
        remote.tags("sql")
    with pytest.raises(TransferInterruptedError, match="org/sql: "):
        list(remote.read("sql", found, make().files[1], 0))


def test_metadata_that_the_hub_refuses_are_an_error(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    made = make(README__md=b"---\ntags: 5\n---\n# mine")
    with pytest.raises(AdzError, match="must be an array"):
        made.push(remote)
    assert hub.repositories["org/sql"].tags == {}


def test_a_huge_manifest_is_not_read(remote: Remote, hub: Any, make: Callable[..., Made]) -> None:
    make().push(remote)
    sha = hub.put("org/sql", {"adapterhub.json": b" " * (2**20 + 1)})
    hub.repositories["org/sql"].tags["v7"] = sha
    with pytest.raises(AdzError, match="larger than 1 MiB") as caught:
        open_remote("hub://org").find("sql", "7")
    assert caught.value.exit_code == 3


_PEFT_ALONE = """
import sys, peft, torch
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
model = peft.PeftModel.from_pretrained(base, "org/sql", revision="v1").eval()
with torch.no_grad():
    torch.save(model(torch.arange(3, 20)[None]).logits, sys.argv[2])
"""


def test_push_and_pull_with_a_card_and_a_signature(
    adz: Any,
    hub: Any,
    hub_environment: dict[str, str],
    commit_adapter: Callable[..., Version],
    tiny_base_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The commands from end to end, and PEFT on what huggingface_hub downloads."""
    key = tmp_path / "key.pem"
    command = ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key]
    subprocess.run(command, check=True, capture_output=True)
    version = commit_adapter("sql")
    result = adz("push", "sql", "--to", "hub://org", "--sign", key)
    assert result.code == 0, result.err
    card = huggingface_hub.ModelCard.load("org/sql")
    assert card.data.library_name == "peft"
    assert "adapterhub" in card.data.tags
    assert adz("show", "sql", "--card").out.rstrip() == str(card).rstrip()

    # A user of PEFT, who has no adapterhub.
    done = subprocess.run(
        [sys.executable, "-c", _PEFT_ALONE, tiny_base_dir, tmp_path / "logits.pt"],
        env={**os.environ, **hub_environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    theirs = torch.load(tmp_path / "logits.pt", weights_only=True)
    ours_base = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32)
    ours = peft.PeftModel.from_pretrained(ours_base, open_registry().path(version)).eval()
    ids = torch.arange(3, 20)[None]
    with torch.no_grad():
        assert torch.equal(theirs, ours(ids).logits)

    monkeypatch.setenv("ADZ_HOME", str(tmp_path / "elsewhere"))
    result = adz("pull", "sql", "--from", "hub://org", "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)[0]["digest"] == version.digest
    registry = open_registry()
    assert registry.resolve("sql@1").digest == version.digest
    assert adz("pull", "sqk", "--from", "hub://org").code == 2


def test_a_source_that_changed_is_not_published(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        made = make()
        made.contents[name] = b"x" * len(made.contents[name])
        with pytest.raises(AdzError, match="changed while it was pushed"):
            made.push(open_remote("hub://org"))
    assert hub.repositories["org/sql"].tags == {}


def test_a_process_of_its_own_takes_the_environment(
    adz: Any,
    adz_process: Any,
    hub: Any,
    hub_environment: dict[str, str],
    commit_adapter: Callable[..., Version],
    tmp_path: Path,
) -> None:
    version = commit_adapter("sql")
    pushed = adz_process("push", "sql", "--to", "hub://org", env=hub_environment)
    assert pushed.code == 0, pushed.err
    assert "hf_" not in pushed.err
    elsewhere = {**hub_environment, "ADZ_HOME": str(tmp_path / "elsewhere")}
    pulled = adz_process("pull", "sql@1", "--from", "hub://org", "--json", env=elsewhere)
    assert pulled.code == 0, pulled.err
    assert json.loads(pulled.out)[0]["digest"] == version.digest
