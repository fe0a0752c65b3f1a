"""`policy.yaml`: what it demands of a name, and that a broken one lets nothing through."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterhub.errors import AdzError
from adapterhub.policy import Policy, Quota, load_policy


def quota_of(name: str) -> Quota | None:
    return load_policy().quota_of(name)


def keys_of(name: str) -> tuple[Path, ...]:
    return load_policy().keys_of(name)


@pytest.fixture
def policy(home: Path) -> Path:
    home.mkdir()
    return home / "policy.yaml"


def test_without_a_file_nothing_is_demanded(home: Path) -> None:
    assert load_policy() == Policy()
    assert (quota_of("team/sql"), keys_of("team/sql")) == (None, ())


def test_the_first_pattern_that_matches_decides(policy: Path) -> None:
    policy.write_text(
        "quotas:\n"
        "  team/sql: {versions: 3}\n"
        "  team/*: {versions: 50, size: 10GB}\n"
        "  '*': {size: 1.5 MiB}\n"
    )
    assert quota_of("team/sql") == Quota(versions=3)
    assert quota_of("team/french") == Quota(versions=50, size=10_000_000_000)
    assert quota_of("teams") == Quota(size=1_572_864)
    # Case counts, and a pattern covers the whole name.
    policy.write_text("quotas:\n  team: {versions: 1}\n  T*: {versions: 1}\n")
    assert quota_of("team/sql") is None


@pytest.mark.parametrize(
    ("text", "size"),
    [("543", 543), ("543B", 543), ("2kB", 2000), ("3 MB", 3_000_000), ("1TiB", 2**40)],
)
def test_sizes(policy: Path, text: str, size: int) -> None:
    policy.write_text(f"quotas: {{x: {{size: {text}}}}}")
    assert quota_of("x") == Quota(size=size)


def test_keys_lie_beside_the_file_or_where_the_path_says(policy: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "b.pem"
    policy.write_text(f"signatures:\n  team/*: [keys/a.pem, {elsewhere}]\n")
    (policy.parent / "keys").mkdir()
    (policy.parent / "keys" / "a.pem").write_text("key")
    assert keys_of("other/sql") == ()
    with pytest.raises(AdzError, match=r"the key .*b\.pem, .* demands for team/sql, is missing"):
        keys_of("team/sql")
    elsewhere.write_text("key")
    assert keys_of("team/sql") == (policy.parent / "keys" / "a.pem", elsewhere)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("signature: {team/*: [a.pem]}", "unknown option signature (did you mean signatures?)"),
        ("quotas: {x: {version: 3}}", "quotas.x.version (did you mean quotas.x.versions?)"),
        ("quotas: {x: {size: 10 gigs}}", "quotas.x.size: a size is bytes, or a number with kB"),
        ("quotas: {x: {size: -1}}", "quotas.x.size: input should be greater than or equal to 0"),
        ("quotas: {x: {versions: many}}", "quotas.x.versions: input should be a whole number"),
        ("signatures: {team/*: a.pem}", "signatures.team/*: input should be a list"),
        ("signatures: {team/*: []}", "signatures.team/* names no key"),
        ("signatures: {team/*: }", "signatures.team/*: input should be a list"),
        ("signatures:", "signatures: input should be a mapping"),
        ("signatures: {a: [k]}\nsignatures: {}", "signatures is there twice, again at line 2"),
        ("quotas:\n  a: {}\n  a: {size: 1}", "a is there twice, again at line 3"),
        ("signatures: [", "is malformed at line 1"),
        ("- a", "is not a mapping of options"),
        ("1: 2", "unknown option 1"),
    ],
)
def test_a_file_that_is_no_policy_is_one_error(policy: Path, text: str, message: str) -> None:
    policy.write_text(text)
    for demand in (quota_of, keys_of):
        with pytest.raises(AdzError) as caught:
            demand("x")
        assert message in str(caught.value)
        assert str(policy) in str(caught.value)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("kind", ["link", "directory", "bytes"])
def test_what_cannot_be_read_does_not_switch_the_policy_off(policy: Path, kind: str) -> None:
    if kind == "link":
        policy.symlink_to(policy.parent / "gone.yaml")
    elif kind == "directory":
        policy.mkdir()
    else:
        policy.write_bytes(b"\xff\xfe")
    with pytest.raises(AdzError):
        keys_of("x")
