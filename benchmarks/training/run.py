"""One case in a process of its own: trains, and prints what it took as one line of JSON."""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback

LR, BATCH, SEED, RANK = 2e-4, 16, 0, 16


class Clock(TrainerCallback):  # type: ignore[misc]
    """Seconds of each step, or the products of the last one: counting takes time and memory."""

    def __init__(self, *, counts: bool) -> None:
        self.seconds: list[float] = []
        self.gflop = 0.0
        self._counts = counts
        self._counter = FlopCounterMode(display=False)
        self._begun = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._counts and state.global_step == state.max_steps - 1:
            self._counter.__enter__()
        self._begun = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seconds.append(time.perf_counter() - self._begun)
        if self._counts and state.global_step == state.max_steps:
            self._counter.__exit__(None, None, None)
            self.gflop = self._counter.get_total_flops() / 1e9


def trl(spec: dict[str, Any]) -> dict[str, Any]:
    """TRL's SFTTrainer as its documentation shows it; `tuned`: no checkpointing, and fp32 where
    there is no GPU. schedule, targets: by TRL's names."""
    from datasets import load_dataset
    from peft import LoraConfig, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    on_gpu = torch.cuda.is_available()
    tuned = {"bf16": on_gpu, "gradient_checkpointing": False} if spec["tuned"] else {}
    model: Any = spec["base"]
    if spec.get("nf4"):
        quantized = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_pretrained(
            model, quantization_config=quantized, dtype=torch.float32
        )
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    elif spec["tuned"]:
        model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    rows = load_dataset("json", data_files=spec["train"], split="train")
    clock = Clock(counts=spec.get("counts", False))
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder, use_cpu=not on_gpu, per_device_train_batch_size=BATCH,
            learning_rate=spec.get("lr", LR), num_train_epochs=spec["epochs"],
            max_steps=spec["steps"], seed=spec.get("seed", SEED), report_to="none",
            logging_steps=1, save_strategy="no", disable_tqdm=True, warmup_steps=spec["warmup"],
            lr_scheduler_type=spec.get("schedule", "linear"), **tuned,
        )  # fmt: skip
        trainer = SFTTrainer(
            model=model,
            args=settings,
            train_dataset=rows,
            processing_class=AutoTokenizer.from_pretrained(spec["base"]),
            peft_config=LoraConfig(
                r=RANK,
                lora_alpha=2 * RANK,
                target_modules=spec.get("targets", "all-linear"),
                task_type="CAUSAL_LM",
            ),
            callbacks=[clock],
        )
        seen = _count_tokens(trainer)
        trainer.train()
        if "save" in spec:
            # What it is worth is measured on its answers.
            trainer.model.save_pretrained(spec["save"])
            return {}
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return _facts(clock, seen, losses, trainer.model, spec)


def _count_tokens(trainer: Any) -> list[int]:
    """Tokens of each step, padding left out."""
    seen: list[int] = []
    step = trainer.training_step

    def counted(model: Any, inputs: Any, *rest: Any) -> Any:
        seen.append(int(inputs["attention_mask"].sum()))
        return step(model, inputs, *rest)

    trainer.training_step = counted
    return seen


def ours(spec: dict[str, Any], train: Any = None) -> dict[str, Any]:
    """`adz train` without its terminal, or what `train` does with its plan."""
    from adapterhub.cli.output import TerminalProgress
    from adapterhub.plugins import open_registry
    from adapterhub.train import pipeline, trainer
    from adapterhub.train.plan import make_plan
    from adapterhub.train.recipe import TrainRecipe

    clock, seen, runs = Clock(counts=spec.get("counts", False)), [], []
    follow = trainer.RunTrainer.follow

    def watched(self: Any, run: Any, *rest: Any) -> None:
        follow(self, run, *rest)
        self.add_callback(clock)
        seen.append(_count_tokens(self))
        runs.append(run)

    trainer.RunTrainer.follow = watched  # type: ignore[method-assign]
    registry = open_registry()
    recipe = TrainRecipe(
        name="speed",
        base=spec.get("base_name"),
        data={"train": spec["train"], "holdout": 0.0},
        method={"name": "lora", "r": RANK, "alpha": 2 * RANK},
        quantizer="nf4" if spec.get("nf4") else None,
        training={
            "lr": LR, "batch_size": BATCH, "max_steps": spec["steps"], "seed": SEED,
            "warmup": spec["warmup"] / spec["steps"], "input_moments": 0,
        },
    )  # fmt: skip
    plan = make_plan(recipe, registry)
    (train or pipeline.train)(plan, registry, TerminalProgress())
    losses = [entry["loss"] for entry in runs[-1].history if "loss" in entry]
    return _facts(clock, seen[-1], losses, runs[-1].model, spec)


def swept(spec: dict[str, Any]) -> dict[str, Any]:
    """Several adapters in one pass; tokens of all of them are counted."""
    from adapterhub.train import sweep

    plans: list[Any] = []
    sweep_of = sweep.sweep

    def train(plan: Any, registry: Any, progress: Any) -> None:
        rates = [LR * (number + 1) / 2 for number in range(spec["members"])]
        for rate in rates:
            training = plan.recipe.training.model_copy(update={"lr": rate})
            recipe = plan.recipe.model_copy(update={"training": training})
            plans.append((f"lr={rate:g}", dataclasses.replace(plan, recipe=recipe)))
        sweep_of(plans, registry, progress)

    facts = ours(spec, train)
    if "tokens_per_second" in facts:
        facts["tokens_per_second"] *= spec["members"]
    return facts


def _facts(
    clock: Clock, seen: list[int], losses: list[float], model: Any, spec: dict[str, Any]
) -> dict[str, Any]:
    if spec.get("counts"):
        return {"gflop": clock.gflop}
    # Before the held-out rows are scored, which is no part of a training.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    gpu_peak = torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0
    timed, seconds = seen[1:], clock.seconds[1:]
    return {
        "tokens_per_second": sum(timed) / sum(seconds),
        "steps": len(seconds),
        "seconds": sum(seconds),
        "losses": losses,
        "holdout_loss": _holdout(model, spec),
        "peak_gb": peak,
        "peak_gpu_gb": gpu_peak,
    }


@torch.no_grad()
def _holdout(model: Any, spec: dict[str, Any]) -> float:
    """Nats a completion token over the held-out rows, computed here and alike for every case."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(spec["base"])
    model.eval()
    total, count = 0.0, 0
    for line in Path(spec["holdout"]).read_text(encoding="utf-8").splitlines()[:64]:
        row = json.loads(line)
        prompt = tokenizer(row["prompt"])["input_ids"]
        whole = [*prompt, *tokenizer(row["completion"])["input_ids"], tokenizer.eos_token_id]
        ids = torch.tensor([whole], device=model.device)
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float().cpu()
        target = torch.tensor(whole[len(prompt) :])
        total += float(torch.nn.functional.cross_entropy(logits, target, reduction="sum"))
        count += len(target)
    return total / count


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    facts = {"trl": trl, "ours": ours, "swept": swept}[given["kind"]](given)
    print("\n" + json.dumps(facts))
