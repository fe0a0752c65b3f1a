"""Every method of PEFT that adds to weights, against what its layers answer.

The truth is independent of how the update is taken: each layer answers for every unit vector
in float64, and the base's own answer is subtracted.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from torch.nn import functional

from adapterhub.convert.pipeline import convert
from adapterhub.convert.recipe import ConvertRecipe
from adapterhub.plugins import open_registry

from .conftest import TARGETS, load

T = {"target_modules": TARGETS}
# PEFT's own convert_to_lora gets these right.
RIGHT: Mapping[str, Callable[[], peft.PeftConfig]] = {
    "lora": lambda: peft.LoraConfig(r=4, **T),
    "rslora": lambda: peft.LoraConfig(r=4, use_rslora=True, **T),
    "loha": lambda: peft.LoHaConfig(r=3, **T),
    "lokr": lambda: peft.LoKrConfig(r=3, **T),
    "vera": lambda: peft.VeraConfig(r=8, **T),
    "fourierft": lambda: peft.FourierFTConfig(n_frequency=50, **T),
    "randlora": lambda: peft.RandLoraConfig(r=4, **T),
    "c3a": lambda: peft.C3AConfig(block_size=16, **T),
    "miss": lambda: peft.MissConfig(r=4, **T),
    "miss-bat": lambda: peft.MissConfig(r=4, init_weights="bat", **T),
    "miss-mini": lambda: peft.MissConfig(r=4, init_weights="mini", mini_r=4, **T),
    "waveft": lambda: peft.WaveFTConfig(n_frequency=50, **T),
    "delora": lambda: peft.DeloraConfig(r=4, **T),
    "gralora": lambda: peft.GraloraConfig(r=4, gralora_k=2, **T),
    "vblora": lambda: peft.VBLoRAConfig(r=4, num_vectors=8, vector_length=16, **T),
    "psoft": lambda: peft.PsoftConfig(r=4, **T),
    "tinylora": lambda: peft.TinyLoraConfig(**T),
    "unilora": lambda: peft.UniLoraConfig(**T),
}
# It does not take these, though they add to weights all the same.
REFUSED: Mapping[str, Callable[[], peft.PeftConfig]] = {
    "ia3": lambda: peft.IA3Config(feedforward_modules=["down_proj"], **T),
    "oft": lambda: peft.OFTConfig(oft_block_size=16, **T),
    "boft": lambda: peft.BOFTConfig(boft_block_size=4, **T),
    "hra": lambda: peft.HRAConfig(r=4, **T),
    "adalora": lambda: peft.AdaLoraConfig(init_r=4, target_r=2, total_step=10, **T),
    "hira": lambda: peft.HiraConfig(r=4, **T),
    "shira": lambda: peft.ShiraConfig(r=4, **T),
    "road": lambda: peft.RoadConfig(group_size=16, **T),
    "osf": lambda: peft.OSFConfig(**T),
    "glora": lambda: peft.GloraConfig(**T),
    "deft": lambda: peft.DeftConfig(**T),
}
# It takes these, and silently makes another adapter of them.
WRONG: Mapping[str, Callable[[], peft.PeftConfig]] = {
    "dora": lambda: peft.LoraConfig(r=4, use_dora=True, **T),
    "pissa": lambda: peft.LoraConfig(r=4, init_lora_weights="pissa", **T),
    "olora": lambda: peft.LoraConfig(r=4, init_lora_weights="olora", **T),
}
# PEFT's layers of these work in float32 inside.
LOOSE = {"c3a", "deft", "pissa", "olora"}

Save = Callable[..., Path]


def truth(base_dir: Path, directory: Path) -> dict[str, torch.Tensor]:
    """(outputs, inputs) float64 by module."""
    base = load(base_dir)
    adapted = peft.PeftModel.from_pretrained(copy.deepcopy(base), directory).eval()
    found = {}
    for name, layer in adapted.get_base_model().named_modules():
        if isinstance(layer, BaseTunerLayer):
            weight = base.get_submodule(name).weight.detach().double()
            units = torch.eye(weight.shape[1], dtype=torch.float64)[None]
            with torch.no_grad():
                answers = copy.deepcopy(layer).double()(units)[0]
            found[name] = (answers - functional.linear(units[0], weight)).T
    assert len(found) == 2 * len(TARGETS)
    return found


def stored(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """b @ a in float64 by module, of tensors in PEFT's names."""
    end = ".lora_A.weight"
    return {
        key.removeprefix("base_model.model.").removesuffix(end): (
            tensors[key.removesuffix(end) + ".lora_B.weight"].double() @ a.double()
        )
        for key, a in tensors.items()
        if key.endswith(end)
    }


def distance(updates: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> float:
    """Relative Frobenius, the worst module."""
    assert updates.keys() == others.keys()
    return max(float((updates[m] - o).norm() / o.norm()) for m, o in others.items())


def run(directory: Path, out: Path, **options: Any) -> Any:
    recipe = ConvertRecipe(adapter=str(directory), base="tiny", out=out, **options)
    return convert(recipe, open_registry(), Silent())


class Silent:
    def task(self, description: str, total: float | None) -> Any:
        from contextlib import nullcontext

        return nullcontext(self)

    def advance(self, amount: float = 1, note: str = "") -> None:
        pass

    note = warn = lambda self, message: None


@pytest.mark.usefixtures("tiny_base")
@pytest.mark.parametrize("name", [*RIGHT, *REFUSED, *WRONG])
def test_the_full_rank_is_what_the_layers_answer(
    name: str, save_adapter: Save, tiny_base_dir: Path, tmp_path: Path
) -> None:
    config = {**RIGHT, **REFUSED, **WRONG}[name]()
    directory = save_adapter(config)
    result = run(directory, tmp_path / "out", rank=64)
    expected = truth(tiny_base_dir, directory)
    made = stored(load_file(tmp_path / "out" / "adapter_model.safetensors"))
    assert distance(made, expected) < (1e-5 if name in LOOSE else 3e-7)
    assert result.exact
    assert result.logits.result.largest < 1e-4
    assert result.logits.base.largest > 10 * result.logits.result.largest


@pytest.mark.usefixtures("tiny_base")
@pytest.mark.parametrize("name", ["loha", "oft", "dora", "fourierft"])
def test_a_low_rank_is_the_best_of_that_rank(
    name: str, save_adapter: Save, tiny_base_dir: Path, tmp_path: Path
) -> None:
    directory = save_adapter({**RIGHT, **REFUSED, **WRONG}[name]())
    result = run(directory, tmp_path / "out", rank=5)
    expected = truth(tiny_base_dir, directory)
    made = stored(load_file(tmp_path / "out" / "adapter_model.safetensors"))
    lost = {m: float((made[m] - e).norm()) for m, e in expected.items()}
    best = {m: float(torch.linalg.svdvals(e)[5:].norm()) for m, e in expected.items()}
    for module, error in lost.items():
        assert error == pytest.approx(best[module], rel=1e-5)
    norm = sum(float(e.norm()) ** 2 for e in expected.values()) ** 0.5
    overall = sum(error**2 for error in lost.values()) ** 0.5 / norm
    assert result.relative_error == pytest.approx(overall, rel=1e-5)
    assert result.largest[0][1] == pytest.approx(
        max(lost[m] / float(e.norm()) for m, e in expected.items()), rel=1e-5
    )


@pytest.mark.parametrize("name", RIGHT)
def test_peft_converts_the_same(name: str, save_adapter: Save, tiny_base_dir: Path) -> None:
    directory = save_adapter(RIGHT[name]())
    expected = truth(tiny_base_dir, directory)
    theirs = stored(_converted_by_peft(tiny_base_dir, directory))
    best = {m: float(torch.linalg.svdvals(e)[32:].norm()) for m, e in expected.items()}
    for module, update in expected.items():
        lost = float((theirs[module] - update).norm())
        assert lost == pytest.approx(best[module], rel=1e-4, abs=3e-6 * float(update.norm()))


@pytest.mark.parametrize("name", WRONG)
def test_peft_makes_another_adapter_of(name: str, save_adapter: Save, tiny_base_dir: Path) -> None:
    directory = save_adapter(WRONG[name]())
    expected = truth(tiny_base_dir, directory)
    theirs = stored(_converted_by_peft(tiny_base_dir, directory))
    rank_32 = max(float(torch.linalg.svdvals(e)[32:].norm() / e.norm()) for e in expected.values())
    assert distance(theirs, expected) > rank_32 + 0.2


@pytest.mark.parametrize("name", REFUSED)
def test_peft_does_not_convert(name: str, save_adapter: Save, tiny_base_dir: Path) -> None:
    directory = save_adapter(REFUSED[name]())
    with pytest.raises(TypeError, match="do not support LoRA conversion"):
        _converted_by_peft(tiny_base_dir, directory)


@pytest.mark.usefixtures("tiny_base")
@pytest.mark.parametrize(
    "config",
    [
        lambda: peft.LoraConfig(r=4, lora_bias=True, **T),
        lambda: peft.LoraConfig(r=4, bias="lora_only", **T),
        lambda: peft.LoraConfig(r=4, alora_invocation_tokens=[5, 6], **T),
        lambda: peft.LoraConfig(r=4, modules_to_save=["norm"], **T),
        lambda: peft.LoraConfig(r=4, trainable_token_indices=[1, 2], **T),
        lambda: peft.BeftConfig(**T),
        lambda: peft.LilyConfig(**T),
        lambda: peft.LNTuningConfig(target_modules=["input_layernorm"]),
        lambda: peft.PromptTuningConfig(num_virtual_tokens=3),
    ],
)
def test_what_no_lora_can_be_is_refused(
    config: Callable[[], peft.PeftConfig], save_adapter: Save, tmp_path: Path, adz: Any
) -> None:
    directory = save_adapter(config())
    done = adz("convert", directory, "--base", "tiny", "--out", tmp_path / "out")
    assert done.code == 1
    assert len([line for line in done.err.splitlines() if line.startswith("adz: ")]) == 1
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def _converted_by_peft(base_dir: Path, directory: Path) -> dict[str, torch.Tensor]:
    model = peft.PeftModel.from_pretrained(load(base_dir), directory).eval()
    tensors: dict[str, torch.Tensor] = peft.convert_to_lora(model, rank=32)[1]
    return tensors


def test_the_tables_cover_what_peft_says_it_converts() -> None:
    """A method that learns to convert in another PEFT has to be listed here."""
    import peft.tuners as tuners

    folder = Path(tuners.__file__).parent
    able = {
        path.parent.name
        for path in folder.glob("*/layer.py")
        if "def supports_lora_conversion" in path.read_text(encoding="utf-8")
    }
    covered = {json.loads(json.dumps(name)).partition("-")[0] for name in [*RIGHT, *REFUSED]}
    assert able - covered == set()
