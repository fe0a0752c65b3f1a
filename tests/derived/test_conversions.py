"""What an engine does not know is converted at its first request, or refused with the figures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterhub.derived import builds
from adapterhub.manifest import BaseLink, Manifest
from adapterhub.plugins import open_registry
from adapterhub.protocols import Derivations, ServeSettings
from adapterhub.serve.doors.settings import door_settings
from adapterhub.serve.errors import RequestError
from adapterhub.serve.metrics import Residency

Serve = Callable[[Derivations], Any]


@pytest.fixture
def loha(tiny_base: Any, tiny_base_dir: Path, tmp_path: Path) -> str:
    """A LoHa adapter by a method that no plugin here has, and what PEFT answers with it."""
    model = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32)
    torch.manual_seed(3)
    adapted: Any = peft.get_peft_model(
        model, peft.LoHaConfig(r=3, target_modules=["q_proj", "down_proj"])
    )
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "hada_" in name:
                parameter.copy_(0.7 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "loha")
    (tmp_path / "loha" / "README.md").unlink()
    link = BaseLink(status="recorded", name="tiny", digests=tiny_base.digests)
    manifest = Manifest(name="odd", method="theirs", made_by="train", base=link)
    open_registry().commit(manifest, tmp_path / "loha")
    tokenizer = AutoTokenizer.from_pretrained(tiny_base_dir)
    ids = tokenizer("The quick", return_tensors="pt")
    out = adapted.eval().generate(**ids, max_new_tokens=8, do_sample=False)
    return str(tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


def test_a_method_of_nobody_here_answers_as_peft_does(serve: Serve, loha: str) -> None:
    ask = serve(Derivations())
    response = ask("odd")
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["choices"][0]["text"] == loha
    assert answer["choices"][0]["text"] != ask("tiny").json()["choices"][0]["text"]
    assert float(response.headers["x-adz-relative-error"]) < 1e-5
    version = open_registry().resolve(answer["model"])
    assert [(p.name, p.version, p.role) for p in version.manifest.parents] == [("odd", 1, "source")]
    assert version.manifest.method == "lora"
    assert ask("odd@1").json()["model"] == answer["model"]


def test_switched_off_it_is_refused(serve: Serve, loha: str) -> None:
    response = serve(Derivations(conversions=False))("odd")
    assert response.status_code == 422
    assert "no plugin here provides theirs" in response.json()["error"]["message"]


vllm_adapters = pytest.importorskip("adapterhub_vllm.adapters")


class Engine:
    """Stands in for AsyncLLM."""

    async def add_lora(self, request: Any) -> bool:
        return True

    async def remove_lora(self, number: int) -> bool:
        return True


def entry_of(rank: int, model: str, **derivations: Any) -> Any:
    """The entry that vLLM would answer with, of a server whose slots have this rank."""
    from adapterhub_vllm.settings import ServerSettings

    doors = door_settings(ServeSettings("tiny"), 4)
    settings = ServerSettings("tiny", rank, 8, doors, derivations=Derivations(**derivations))

    async def ask() -> Any:
        adapters = vllm_adapters.Adapters(settings)
        engine: Any = Engine()
        adapters.start(engine, Residency())
        try:
            with adapters.request():
                return await adapters.request_for(model)
        finally:
            adapters._sweeping.cancel()

    return asyncio.run(ask())


def test_vllm_gets_a_lora_that_fits_or_the_error_with_what_helps(
    commit_adapter: Any, adz: Any
) -> None:
    commit_adapter("ours", "dora", seed=1)
    entry = entry_of(64, "ours")
    version = open_registry().resolve(entry.lora_name)
    assert (version.name[:8], version.manifest.method) == ("derived/", "lora")
    with pytest.raises(RequestError) as refused:
        entry_of(8, "ours")
    for words in ("its method is dora", "--engine transformers", "of rank 8 loses", "5.0%",
                  "adz convert ours@1 --rank N"):  # fmt: skip
        assert words in refused.value.message
    assert refused.value.status == 422
    allowed = open_registry().resolve(entry_of(8, "ours", convert_error=0.9).lora_name)
    assert allowed.manifest.adapter["rank"] == 8
    by_hand = adz("convert", "ours", "--rank", "8", "--name", "by-hand")
    assert by_hand.code == 0, by_hand.err
    assert open_registry().resolve("by-hand").manifest.payload == allowed.manifest.payload


def test_what_only_the_files_say_is_converted_too(
    tiny_base: Any, tiny_base_dir: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base_dir, dtype=torch.float32)
    config = peft.LoraConfig(
        r=4, target_modules=["q_proj"], init_lora_weights="pissa", task_type="CAUSAL_LM"
    )
    adapted: Any = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "pissa")
    (tmp_path / "pissa" / "README.md").unlink()
    link = BaseLink(status="recorded", name="tiny", digests=tiny_base.digests)
    manifest = Manifest(name="cut", method="lora", made_by="train", base=link)
    open_registry().commit(manifest, tmp_path / "pissa")
    version = open_registry().resolve(entry_of(8, "cut").lora_name)
    # Twice the rank holds what PiSSA changed, exactly.
    assert version.manifest.metrics["relative_error"] < 1e-5
    with pytest.raises(RequestError, match="a changed base"):
        entry_of(8, "cut", conversions=False)


def test_it_waits_for_memory(commit_adapter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_adapter("ours", "dora", seed=1)
    monkeypatch.setattr(builds, "available_bytes", lambda: 10)
    with pytest.raises(RequestError, match=r"1\.0 GiB of memory are missing") as refused:
        entry_of(64, "ours")
    assert (refused.value.status, refused.value.headers["retry-after"]) == (503, "10")
