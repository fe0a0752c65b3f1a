"""Every gate stands at every door: an import, a commit and a pull of the same malicious payload
are refused with one line, and nothing is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from adapterhub.bases.digests import hash_file
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import BaseLink, BaseRecord, FileRecord, Manifest, payload_digest
from adapterhub_registry.store import LocalRegistry

from .malicious import EXAMPLES

# An import asks for weights before the gates do, and takes a pickle for an offer to convert.
USAGE = {"archive"}
# What an import does not take at all.
ONLY_IMPORTED = {"pickle", "archive"}


@pytest.fixture
def asserted(registry: LocalRegistry, base: BaseRecord) -> BaseLink:
    registry.add_base(base)
    return BaseLink(status="asserted", name=base.name, digests=base.digests)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_import_is_refused(
    adz: Callable[..., Any], registry: LocalRegistry, payload: Path, asserted: BaseLink, name: str
) -> None:
    EXAMPLES[name].spoil(payload)
    result = adz("import", payload, "--name", "sql", "--base", asserted.name)
    assert result.code == (2 if name in USAGE else EXIT_VERIFICATION), result.err
    assert result.out == ""
    assert len(result.err.splitlines()) == 1
    assert len(result.err) < 1000
    for text in EXAMPLES[name].refusal:
        assert text in result.err
    assert registry.names() == []


def records(directory: Path) -> dict[str, FileRecord]:
    """The files as a manifest from elsewhere names them."""
    return {
        path.name: FileRecord(sha256=hash_file(path), size=path.stat().st_size)
        for path in sorted(directory.iterdir())
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("door", ["commit", "receive"])
@pytest.mark.parametrize("name", [name for name in EXAMPLES if name not in ONLY_IMPORTED])
def test_a_commit_and_a_pull_are_refused(
    registry: LocalRegistry,
    payload: Path,
    asserted: BaseLink,
    make_manifest: Callable[..., Manifest],
    name: str,
    door: str,
) -> None:
    EXAMPLES[name].spoil(payload)
    manifest = make_manifest(base=asserted)
    store: Callable[[], object] = partial(registry.commit, manifest, payload)
    if door == "receive":
        files = records(payload)
        changes = {"version": 3, "files": files, "payload": payload_digest(files)}
        changes["created"] = "2026-01-01T00:00:00.000Z"
        body = manifest.model_copy(update=changes).canonical()
        store = partial(registry.receive, body, payload, source="test")
    with pytest.raises(AdzError) as error:
        store()
    assert error.value.exit_code == EXIT_VERIFICATION
    assert "\n" not in str(error.value)
    assert registry.names() == []
    assert list(registry.blobs.directory.iterdir()) == []


def test_every_gate_for_payloads_has_an_example() -> None:
    # 6 and 7 are below and in the tests of names, 9 in those of remotes.
    assert {example.gate for example in EXAMPLES.values()} == {1, 2, 3, 4, 5, 8}


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("chat_template.jinja", "a chat template is a program"),
        ("tokenizer_config.json", "no file that an adapter consists of"),
        ("modeling_evil.py", "no file that an adapter consists of"),
        ("training_args.bin", "a pickle can run code"),
        ("weights.tar.gz", "archives are not unpacked"),
        ("readme.md", "no file that an adapter consists of"),
        ("ADAPTER_CONFIG.JSON", "no file that an adapter consists of"),
        ("adapter_config.js\u043en", "not allowed"),
        ("adapter_config.json\n", "not allowed"),
        (".git", "not allowed"),
    ],
)
def test_another_file_is_refused_by_commit_and_ignored_by_import(
    adz: Callable[..., Any],
    registry: LocalRegistry,
    payload: Path,
    asserted: BaseLink,
    make_manifest: Callable[..., Manifest],
    file: str,
    reason: str,
) -> None:
    (payload / file).write_bytes(b"x")
    with pytest.raises(AdzError, match=reason):
        registry.commit(make_manifest(base=asserted), payload)
    assert registry.names() == []
    result = adz("import", payload, "--name", "sql", "--json")
    assert result.code == 0, result.err
    assert "ignored: " in result.err
    assert set(records(registry.path(registry.resolve("sql")))) == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "/etc/x",
        "a\0b",
        "SQL",
        "\uff53\uff51\uff4c",
        "sql\u0301",
        "a..b",
        "-x",
        "a/b/c",
        "",
        "x" * 65,
    ],
)
def test_names_are_plain(
    adz: Callable[..., Any], registry: LocalRegistry, payload: Path, name: str
) -> None:
    result = adz("import", payload, "--name", name)
    assert result.code == 2
    assert "is not a valid name" in result.err
    assert registry.names() == []


def test_the_same_files_pass_unspoilt(
    adz: Callable[..., Any], payload: Path, asserted: BaseLink
) -> None:
    result = adz("import", payload, "--name", "sql", "--base", asserted.name, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["base"]["status"] == "asserted"
