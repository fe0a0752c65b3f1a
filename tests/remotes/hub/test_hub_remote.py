"""The Hub as a remote: one commit a version, read by huggingface_hub alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from made import CARD, WEIGHTS, Made

from adapterhub.errors import AdzError
from adapterhub.exchange.remotes import open_remote
from adapterhub.protocols import Remote, RemoteVersion


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


def test_a_source_that_changed_is_not_published(
    remote: Remote, hub: Any, make: Callable[..., Made]
) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        made = make()
        made.contents[name] = b"x" * len(made.contents[name])
        with pytest.raises(AdzError, match="changed while it was pushed"):
            made.push(open_remote("hub://org"))
    assert hub.repositories["org/sql"].tags == {}
