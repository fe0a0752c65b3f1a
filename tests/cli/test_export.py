"""`adz export`: options that contradict each other are told before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--merged", "d", "--gguf", "f16"], "--merged and --gguf exclude each other"),
        (["--gguf", "f16", "--lora-gguf"], "--gguf and --lora-gguf exclude each other"),
        (["--merged", "d", "e"], "PATH does not go with --merged"),
        (["--gguf", "f16", "--dtype", "f32"], "--dtype does not go with --gguf"),
        (["--lora-gguf", "--no-compare"], "--no-compare does not go with --lora-gguf"),
        (["--merged", "d", "--with-artifacts"], "--with-artifacts does not go with --merged"),
        (["d", "--ollama"], "--ollama goes with --gguf or --lora-gguf only"),
        (["--lora-gguf", "--ollama"], "--ollama and --from go together"),
        (["--lora-gguf", "--from", "x"], "--ollama and --from go together"),
        ([], "there is no directory to write to"),
    ],
)
def test_contradictions(
    arguments: list[str], message: str, adz: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = adz("export", "nobody", *arguments)
    assert done.code == 2
    assert message in done.err
    assert [p for p in tmp_path.iterdir() if p.name != "adz-home"] == []
