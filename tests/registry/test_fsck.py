"""fsck finds what is wrong and names the versions that suffer."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from adapterhub.manifest import BaseLink


def findings(registry: Any) -> list[tuple[str, tuple[str, ...]]]:
    return [(f"{f.subject}: {f.problem}", f.versions) for f in registry.check()]


def damage(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_healthy_store_has_no_finding(commit: Any, registry: Any, make_base: Any) -> None:
    base = make_base()
    registry.add_base(base)
    version = commit(base=BaseLink(status="recorded", name="llama", digests=base.digests))
    commit()
    registry.path(version)
    registry.tag("sql@1", "prod")
    registry.remove("sql@2")
    assert findings(registry) == []


def test_every_flipped_bit_and_truncation_is_found(commit: Any, registry: Any) -> None:
    version = commit()
    moments = random.Random(0)
    blobs = {r.sha256 for r in version.manifest.files.values()} | {version.digest}
    for digest in sorted(blobs):
        path = registry.blobs.path(digest)
        intact = path.read_bytes()
        for _ in range(20):
            bit = moments.randrange(len(intact) * 8)
            flipped = bytearray(intact)
            flipped[bit // 8] ^= 1 << bit % 8
            damage(path, bytes(flipped))
            assert findings(registry) == [
                (f"blob {digest}: its bytes do not match its digest", ("sql@1",))
            ]
        length = moments.randrange(len(intact))
        damage(path, intact[:length])
        expected = f"blob {digest}: {length} bytes instead of {len(intact)}"
        assert findings(registry) == [(expected, ("sql@1",))]
        damage(path, intact)
    assert findings(registry) == []


def test_a_missing_blob_names_every_version_that_needs_it(commit: Any, registry: Any) -> None:
    version = commit("sql"), commit("french"), commit("other", seed=1)
    digest = version[0].manifest.files["adapter_model.safetensors"].sha256
    registry.blobs.path(digest).unlink()
    assert findings(registry) == [(f"blob {digest}: missing", ("french@1", "sql@1"))]


def test_two_swapped_blobs_are_found(commit: Any, registry: Any) -> None:
    one, two = (
        commit(seed=seed).manifest.files["adapter_model.safetensors"].sha256 for seed in (1, 2)
    )
    first, second = registry.blobs.path(one), registry.blobs.path(two)
    data = first.read_bytes(), second.read_bytes()
    damage(first, data[1])
    damage(second, data[0])
    assert {versions for _, versions in findings(registry)} == {("sql@1",), ("sql@2",)}


def change(registry: Any, statement: str, *arguments: Any) -> None:
    with registry.database.reading() as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute(statement, arguments)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE versions SET method = 'dora'", "versions sql 1 has another method"),
        ("UPDATE versions SET rank = 64", "versions sql 1 has another rank"),
        ("UPDATE versions SET name = 'other'", "it is of sql@1"),
        ("UPDATE versions SET state = 'live', ended = 'x'", "sql 1 has another ended"),
        ("DELETE FROM needs WHERE size > 100", "needs sha256:"),
        ("DELETE FROM manifests", "missing or damaged"),
        ("UPDATE aliases SET number = 7", "aliases sql prod has another number"),
        ("INSERT INTO aliases VALUES ('sql', 'new', 1)", "nothing that its history tells of"),
        ("DELETE FROM aliases", "aliases sql prod is missing"),
        ("UPDATE versions SET state = 'removed'", "sql 1 has another state"),
        ("UPDATE versions SET number = 2", "versions sql 1 is missing"),
        ("DELETE FROM events WHERE seq = 1", "the history lacks event 1"),
        ("UPDATE events SET actor = 'somebody'", "event 1 differs"),
        ("UPDATE events SET version = 3 WHERE seq = 1", "sql goes from version 0 to 3"),
        ("UPDATE events SET body = '{' WHERE seq = 1", "its history cannot be applied"),
        ("UPDATE events SET body = replace(body, ':', ': ')", "event 1 differs"),
        ("DROP INDEX versions_live", "index versions_live is not that of this schema"),
    ],
)
def test_a_database_that_says_something_else_is_found(
    commit: Any, registry: Any, statement: str, problem: str
) -> None:
    commit()
    registry.tag("sql@1", "prod")
    change(registry, statement)
    assert any(problem in text for text, _ in findings(registry))


def test_a_manifest_that_is_wrong_but_well_digested_is_found(commit: Any, registry: Any) -> None:
    from adapterhub.manifest import canonical_json, sha256_of

    version = commit()
    values = json.loads(version.manifest.canonical())
    values["payload"] = "sha256:" + "0" * 64
    body = canonical_json(values)
    change(registry, "UPDATE manifests SET body = ?, digest = ?", body, sha256_of(body))
    change(registry, "UPDATE versions SET digest = ?", sha256_of(body))
    assert any("payload digest does not match" in text for text, _ in findings(registry))


@pytest.mark.parametrize("how", ["delete", "edit"])
def test_a_journal_that_lacks_a_line_is_found(commit: Any, registry: Any, how: str) -> None:
    commit(), commit(), commit()
    path = registry.database.journal.path
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = b"" if how == "delete" else lines[1].replace(b'"sql"', b'"sqm"')
    path.write_bytes(b"".join(lines))
    assert findings(registry) == [("names.jsonl: event 2 is missing", ("sql@2",))]


def test_a_base_that_changed_on_the_disk_is_found(
    commit: Any, registry: Any, make_base: Any
) -> None:
    base = make_base()
    registry.add_base(base)
    commit(base=BaseLink(status="recorded", name="llama", digests=base.digests))
    weights = Path(base.path, "model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert findings(registry) == [("base llama: it changed on the disk: weights", ("sql@1",))]
    weights.unlink()
    text, versions = findings(registry)[0]
    assert "there are no safetensors" in text
    assert versions == ("sql@1",)


def test_it_repairs_nothing(commit: Any, registry: Any) -> None:
    version = commit()
    path = registry.blobs.path(version.digest)
    damage(path, b"x")
    assert findings(registry) == findings(registry)
    assert path.read_bytes() == b"x"
