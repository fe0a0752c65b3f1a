"""Published adapters pass the gates: a gate that refuses real adapters is broken.

The corpus holds facts of published adapters: the keys that their version of PEFT writes, the values
that differ from its defaults, and the module names of their architectures. Weights are what PEFT
writes today for that configuration on a tiny model of that architecture.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.imports.peft_keys import KNOWN_KEYS
from adapterhub.manifest import BaseLink, BaseRecord, Manifest
from adapterhub_registry.gates import check_payload
from adapterhub_registry.gates.tensors import PROMPT_TYPES

from .rebuild import configuration, read, write_adapter, write_base

LEAST = 0.95
MANIFEST = Manifest(name="x", method="lora", made_by="import", base=BaseLink(status="unknown"))


@pytest.fixture(scope="session")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict[str, Any], Path]]:
    """Every entry of the corpus and the directory of its adapter."""
    architectures, keysets = read("bases"), read("keysets")
    folder = tmp_path_factory.mktemp("corpus")
    made = []
    for number, entry in enumerate([*read("published"), *read("experiments")]):
        directory = folder / str(number)
        method = entry["keys"].split()[0]
        architecture = architectures[entry["architecture"]]
        write_adapter(method, configuration(entry, keysets), architecture, directory)
        made.append((entry, directory))
    return made


@pytest.fixture(scope="session")
def base_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], BaseRecord]:
    """The record of the tiny base of an architecture."""
    folder = tmp_path_factory.mktemp("bases")
    architectures = read("bases")
    made: dict[str, BaseRecord] = {}

    def get(name: str) -> BaseRecord:
        if name not in made:
            made[name] = write_base(architectures[name], folder / name)
        return made[name]

    return get


def refusal(directory: Path, base: BaseRecord | None) -> str | None:
    try:
        check_payload(directory, MANIFEST, base)
    except AdzError as error:
        return str(error) if error.exit_code == EXIT_VERIFICATION else None
    return None


@pytest.mark.filterwarnings("ignore")
def test_published_adapters_pass(
    rebuilt: list[tuple[dict[str, Any], Path]],
    base_of: Callable[[str], BaseRecord],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert len(rebuilt) >= 100
    refused = {}
    for number, (entry, directory) in enumerate(rebuilt):
        reasons = [refusal(directory, base) for base in (None, base_of(entry["architecture"]))]
        if any(reasons):
            refused[number] = f"{entry['source']}: {reasons[0] or reasons[1]}"
        expected = entry.get("refused")
        assert bool(expected) == any(reasons), (entry["source"], reasons)
        assert expected is None or expected in str(reasons[0])
    share = 1 - len(refused) / len(rebuilt)
    with capsys.disabled():
        print(f"\n{len(rebuilt)} published adapters, {share:.1%} accepted")
        print("\n".join(f"refused: {text}" for text in refused.values()))
    assert share >= LEAST


@pytest.mark.filterwarnings("ignore")
def test_they_pass_on_no_other_architecture(
    rebuilt: list[tuple[dict[str, Any], Path]], base_of: Callable[[str], BaseRecord]
) -> None:
    for entry, directory in rebuilt:
        kind = json.loads((directory / "adapter_config.json").read_text())["peft_type"]
        # Virtual tokens have a width and no module; these bases are equally wide.
        if kind in PROMPT_TYPES or entry.get("refused"):
            continue
        other = base_of("unet" if entry["architecture"] != "unet" else "gpt2")
        if entry["architecture"] in ("sd3", "flux2"):
            other = base_of("llama")
        reason = refusal(directory, other)
        assert reason is not None, entry["source"]
        assert "of base" in reason or "expected" in reason


@pytest.mark.parametrize("keys", read("keysets"))
def test_the_keys_of_every_peft_are_known(keys: str) -> None:
    assert set(read("keysets")[keys]) - KNOWN_KEYS == set()


def test_the_key_sets_are_those_of_many_versions() -> None:
    versions = {keys.split()[1] for keys in read("keysets")}
    assert {"0.1.0", "0.3.0", "0.4.0", "0.21.2"} <= versions
    assert len(versions) >= 18
    used = {entry["keys"] for entry in (*read("published"), *read("experiments"))}
    assert len({keys.split()[0] for keys in used}) >= 35
    assert len({keys.split()[1] for keys in used}) >= 12


def test_the_newest_key_set_is_that_of_the_installed_peft() -> None:
    from dataclasses import fields

    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    keysets = read("keysets")
    newest = {keys.split()[0]: values for keys, values in keysets.items()}
    for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items():
        written = {field.name for field in fields(config)} - {"runtime_config"}
        assert set(newest[kind.value]) == written, kind
