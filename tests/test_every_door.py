"""Every way to use an adapter refuses one of another base, and one that passed the gates while
its base was not known and does not fit it. Nothing is loaded for that."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import numpy as np
import pytest
from safetensors.numpy import save_file

import adapterhub.models
from adapterhub.bases.identity import PARTS
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import BaseLink, Manifest, Version
from adapterhub.plugins import open_registry
from adapterhub.protocols import ServeSettings
from adapterhub.serve.doors.settings import door_settings
from adapterhub.serve.errors import RequestError
from adapterhub.serve.metrics import Residency
from adapterhub.serve.models import why_not_servable

Q = "base_model.model.model.layers.0.self_attn.q_proj"
OTHER = "sha256:" + "f" * 64
ROW = '{"prompt": "a", "completion": "b"}\n'

Door = Callable[[Any, Path], str | None]
"""Uses the version `sql` over the base `tiny`; the refusal, or None where there is none."""


def command(*words: str) -> Door:
    def use(adz: Any, folder: Path) -> str | None:
        (folder / "rows.jsonl").write_text(ROW)
        result = adz(*[word.replace("DIR", str(folder)) for word in words])
        if result.code == 0:
            return None
        assert result.code == EXIT_VERIFICATION, result.err
        assert result.out == ""
        return str(result.err)

    return use


def in_python(adz: Any, folder: Path) -> str | None:
    from adapterhub import Hub

    try:
        Hub().load("sql")
    except AdzError as error:
        return str(error)
    return None


def transformers_engine(adz: Any, folder: Path) -> str | None:
    from adapterhub.generate import Sampling
    from adapterhub_transformers.adapters import Adapters
    from adapterhub_transformers.job import Job
    from adapterhub_transformers.worker import Worker

    registry = open_registry()
    version, base = registry.resolve("sql"), registry.base("tiny")
    reason = why_not_servable(version, base)
    if reason:
        return reason
    tokenizer = SimpleNamespace(eos_token_id=0, chat_template=None)
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=0))
    adapters = Adapters(registry, base, model, tokenizer, max_resident=1, context=64)
    worker = Worker(adapters, tokenizer, cache_bytes=2**20)
    job = Job(version, [1], Sampling(1))
    worker.submit(job)
    error = job.done.exception(60)
    worker.stop()
    return None if "loaded" in str(error) else str(error)


def vllm_engine(adz: Any, folder: Path) -> str | None:
    pytest.importorskip("vllm")
    from adapterhub_vllm.adapters import Adapters
    from adapterhub_vllm.settings import ServerSettings

    settings = ServerSettings("tiny", 16, 8, door_settings(ServeSettings("tiny"), 4))

    async def ask() -> None:
        adapters = Adapters(settings)
        adapters.start(AsyncMock(), Residency())
        with adapters.request():
            await adapters.request_for("sql")

    try:
        asyncio.run(ask())
    except RequestError as error:
        return str(error) if error.status is HTTPStatus.UNPROCESSABLE_ENTITY else None
    return None


DOORS: dict[str, Door] = {
    "eval": command("eval", "sql", "--data", "DIR/rows.jsonl"),
    "run": command("run", "sql", "hello"),
    "export --merged": command("export", "sql", "--merged", "DIR/out"),
    "export --gguf": command("export", "sql", "--gguf", "f16", "DIR/out.gguf"),
    "export --lora-gguf": command("export", "sql", "--lora-gguf", "DIR/out.gguf"),
    "convert": command("convert", "sql"),
    "merge": command("merge", "sql", "sound", "--linear", "--name", "both"),
    "load": in_python,
    "transformers": transformers_engine,
    "vllm": vllm_engine,
}


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal comes before anything is loaded."""

    def loaded(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("a model was loaded")

    for name in ("load_base", "load_directory"):
        monkeypatch.setattr(adapterhub.models, name, loaded)


@pytest.fixture
def commit(tmp_path: Path) -> Callable[..., Version]:
    """A LoRA of one module, linked to a base with these digests."""

    def make(digests: Any, name: str = "sql", width: int = 64) -> Version:
        directory = tmp_path / f"payload-{name}"
        directory.mkdir()
        random = np.random.default_rng(0)
        tensors = {
            f"{Q}.lora_A.weight": random.normal(size=(4, width)).astype(np.float32),
            f"{Q}.lora_B.weight": random.normal(size=(64, 4)).astype(np.float32),
        }
        save_file(tensors, directory / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
        (directory / "adapter_config.json").write_text(json.dumps(config))
        status = "recorded" if digests else "unknown"
        link = BaseLink(status=status, name="made-on" if digests else None, digests=digests)
        manifest = Manifest(name=name, method="lora", made_by="train", base=link)
        return open_registry().commit(manifest, directory)

    return make


@pytest.mark.parametrize("part", [*PARTS[:3], "unknown"])
@pytest.mark.parametrize("door", DOORS)
def test_an_adapter_of_another_base_is_refused(
    adz: Any, tmp_path: Path, tiny_base: Any, commit: Callable[..., Version], door: str, part: str
) -> None:
    commit(tiny_base.digests, "sound")
    unknown = part == "unknown"
    commit(None if unknown else tiny_base.digests.model_copy(update={part: OTHER}))
    reason = DOORS[door](adz, tmp_path)
    assert reason is not None
    assert ("the base of sql" in reason and "is not known" in reason) == unknown
    # What differs, and both digests.
    if not unknown:
        mine = getattr(tiny_base.digests, part).removeprefix("sha256:")[:12]
        assert f"{part} " in reason
        assert mine in reason
        assert "ffffffffffff" in reason
    assert not (tmp_path / "out").exists()
    assert "both" not in open_registry().names()


@pytest.mark.parametrize("door", DOORS)
def test_one_that_came_before_its_base_is_checked_when_it_is_there(
    adz: Any, tmp_path: Path, tiny_base: Any, commit: Callable[..., Version], door: str
) -> None:
    registry = open_registry()
    registry.remove_base("tiny")
    commit(tiny_base.digests, width=9)
    commit(tiny_base.digests, "sound")
    registry.add_base(tiny_base)
    reason = DOORS[door](adz, tmp_path)
    assert reason is not None
    assert "q_proj of tiny is (64, 64): (r, 64) expected" in reason


def test_what_was_checked_once_is_not_read_again(
    home: Path, tiny_base: Any, commit: Callable[..., Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterhub_registry import admission

    version = commit(tiny_base.digests)
    calls = []
    check = admission.check_payload
    monkeypatch.setattr(
        admission, "check_payload", lambda *given: (calls.append(given), check(*given))
    )
    # Its commit has judged it.
    open_registry().admit(version, tiny_base)
    assert not calls
    note = next((home / "registry" / "views").glob("*.admitted"))
    note.unlink()
    registry = open_registry()
    registry.admit(version, tiny_base)
    registry.admit(version, tiny_base)
    # Another process.
    open_registry().admit(version, tiny_base)
    assert len(calls) == 1
    # Within a process not even the note is read.
    kept = note.read_bytes()
    note.unlink()
    registry.admit(version, tiny_base)
    assert len(calls) == 1
    note.write_bytes(kept)
    digests = tiny_base.digests.model_copy(update={"tokenizer": OTHER})
    registry.admit(version, tiny_base.model_copy(update={"digests": digests}))
    assert len(calls) == 2
    # Stricter gates look again.
    monkeypatch.setattr(admission, "RULES", admission.RULES + 1)
    open_registry().admit(version, tiny_base)
    assert len(calls) == 3


def test_a_note_that_is_lost_or_damaged_costs_another_check(
    home: Path, tiny_base: Any, commit: Callable[..., Version]
) -> None:
    version = commit(tiny_base.digests)
    open_registry().admit(version, tiny_base)
    (note,) = (home / "registry" / "views").glob("*.admitted")
    for text in ("", "{", "{}", '"x"', "null"):
        note.write_text(text)
        open_registry().admit(version, tiny_base)
        assert len(json.loads(note.read_text())) == 1


def test_another_template_passes_with_a_warning(
    adz: Any, tmp_path: Path, tiny_base: Any, commit: Callable[..., Version]
) -> None:
    from adapterhub.bases.together import resolve_together
    from adapterhub.serve.models import template_notes

    commit(tiny_base.digests.model_copy(update={"chat_template": OTHER}))
    registry = open_registry()
    base, versions = resolve_together(registry, ["sql"])
    assert base == tiny_base
    (line,) = template_notes(registry, base)
    assert line.startswith("sql@1 was made with another chat template than tiny has")
    assert versions["sql"].number == 1
