"""Full fine-tuning: a new base that everything else knows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from adapterhub.plugins import open_registry

FAST = ("-o", "training.max_steps=3", "-o", "training.batch_size=4", "-o", "training.lr=1e-3",
        "-o", "data.holdout=0.2")  # fmt: skip


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "double.jsonl"
    made = [{"prompt": f"Word: {n}\nTwice:", "completion": f" {n}{n}"} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


@pytest.fixture
def train(adz, rows, tiny_base):
    """`adz train --method full` into the base `better`; returns its record."""

    def run(*flags, base="tiny", name="better"):
        done = adz("train", "--method", "full", "--base", base, "--name", name,
                   "--data", rows, *FAST, *flags)  # fmt: skip
        assert done.code == 0, done.err
        return open_registry().base(name)

    return run


def test_the_weights_are_those_of_an_independent_run(train, tiny_base, rows):
    """The same steps by hand: plain PyTorch over the same batches in the same order."""
    from adapterhub.models import load_tokenizer
    from adapterhub.train.batches import Collator, Shuffled
    from adapterhub.train.plan import make_plan
    from adapterhub.train.recipe import TrainRecipe
    from adapterhub.train.rows import make_rows

    flags = ("-o", "training.warmup=0", "-o", "training.schedule=constant", "-o", "training.clip=0")
    made = train(*flags)
    recipe = TrainRecipe.model_validate({**made.derivation["recipe"], "name": "other"})
    plan = make_plan(recipe, open_registry())
    tokens = make_rows(plan.train, load_tokenizer(tiny_base), plan.prompt_format, 1024)
    order = list(Shuffled(len(tokens), 0))
    model = AutoModelForCausalLM.from_pretrained(tiny_base.path, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    for step in range(3):
        batch = Collator(0)([tokens[i] for i in order[4 * step : 4 * step + 4]])
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    stored = load_file(f"{made.path}/model.safetensors")
    assert set(stored) == set(model.state_dict())
    start = load_file(f"{tiny_base.path}/model.safetensors")
    for name, weight in model.state_dict().items():
        # AdamW makes steps of one size of gradients that are nearly rounding errors.
        apart = (stored[name] - weight).norm() / (weight - start[name]).norm()
        assert apart < 1e-2, name


def test_the_record_says_how_it_was_made_and_the_original_stays(train, tiny_base, rows):
    before = load_file(f"{tiny_base.path}/model.safetensors")
    made = train()
    after = load_file(f"{tiny_base.path}/model.safetensors")
    assert all(torch.equal(after[name], before[name]) for name in before)
    how = made.derivation
    assert (how["kind"], how["from"], how["method"]) == ("fine-tuned", "tiny", "full")
    assert how["digests"] == tiny_base.digests.model_dump(mode="json")
    assert how["data"][0]["rows"] == 40
    assert how["recipe"]["training"]["max_steps"] == 3
    assert how["metrics"]["holdout_loss"] < how["metrics"]["holdout_loss_base"]
    assert made.digests.weights != tiny_base.digests.weights
    same = ("arch", "tokenizer", "chat_template")
    assert all(getattr(made.digests, p) == getattr(tiny_base.digests, p) for p in same)
    found = sorted(path.name for path in Path(made.path, "training").iterdir())
    assert found == ["loss.png", "metrics.jsonl", "recipe.yaml"]


def test_adapters_are_trained_over_it_and_belong_to_it_alone(adz, train, rows):
    train()
    done = adz("train", "--base", "better", "--name", "sql", "--data", rows, *FAST)
    assert done.code == 0, done.err
    assert open_registry().resolve("sql").manifest.base.name == "better"
    refused = adz("eval", "sql", "--base", "tiny", "--data", rows)
    assert refused.code == 3
    assert "other weights" in refused.err
    kept = adz("base", "rm", "better")
    assert "needed by sql" in kept.err


def test_lineage_goes_through_it_in_both_directions(adz, train, rows, tiny_base):
    made = train()
    assert adz("train", "--base", "better", "--name", "sql", "--data", rows, *FAST).code == 0
    short = made.digests.weights[7:19]
    base = f"base better  LlamaForCausalLM, fine-tuned, {short}"
    origin = f"base tiny  LlamaForCausalLM, {tiny_base.digests.weights[7:19]}"
    lines = adz("lineage", "sql").out.splitlines()
    assert lines[0] == "sql@1  lora, rank 16, trained"
    assert lines[1] == f"├── {base}"
    assert lines[2] == f"│   ├── {origin}"
    assert lines[3].startswith("│   └── data double.jsonl  40 rows, prompt_completion, ")
    above, below = adz("lineage", "better", "--children").out.split("\n\nmade from it\n")
    assert above.splitlines()[0] == base
    assert below.splitlines() == [base, "└── sql@1  lora, rank 16, trained"]
    *_, made_from_tiny = adz("lineage", "tiny", "--children").out.split("made from it\n")
    assert made_from_tiny.splitlines() == [
        origin, f"└── {base}", "    └── sql@1  lora, rank 16, trained",
    ]  # fmt: skip


def test_a_base_in_bfloat16_gives_one_whose_gates_saw_the_rounded_weights(
    adz, train, tiny_base, tmp_path
):
    half = tmp_path / "half"
    model = AutoModelForCausalLM.from_pretrained(tiny_base.path, dtype=torch.bfloat16)
    model.save_pretrained(half)
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(tiny_base.path).save_pretrained(half)
    assert adz("base", "add", "half", half).code == 0
    made = train(base="half")
    assert made.dtype == "BF16"
    assert made.digests.arch == open_registry().base("half").digests.arch


def test_a_run_that_dies_goes_on_where_it_was(adz, train, rows, monkeypatch):
    from adapterhub.train import new_base

    whole = train(name="whole")

    def fail(*_, **__):
        raise KeyboardInterrupt

    steps = ("-o", "training.save_every=1")
    with monkeypatch.context() as patch:
        patch.setattr(new_base, "add_made_base", fail)
        died = adz("train", "--method", "full", "--base", "tiny", "--name", "again",
                   "--data", rows, *FAST, *steps)  # fmt: skip
    assert died.code == 130
    assert "again" not in {base.name for base in open_registry().bases()}
    resumed = train(*steps, "--resume", name="again")
    assert resumed.derivation["metrics"]["resumed"]
    assert resumed.digests.weights == whole.digests.weights


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--quantizer", "nf4"), "which must be plain floats"),
        (("--name", "tiny"), "'tiny' is the name of a base"),
        (("--name", "sql"), "full makes a base, and 'sql' is the name of an adapter"),
        (("--sweep", "lr=1e-3,1e-4"), "a sweep compares adapters, and full makes bases"),
        (("-o", "method.r=8"), "unknown option method.r"),
    ],
)
def test_refusals(adz, commit_adapter, rows, flags, message):
    commit_adapter("sql")
    done = adz("train", "--method", "full", "--data", rows, "--name", "new", *flags)
    assert done.code == 2
    assert message in done.err
    assert [base.name for base in open_registry().bases()] == ["tiny"]


def test_a_base_that_is_stored_quantised_is_refused(adz, rows, tiny_base, tmp_path):
    """Its directory says so in config.json."""
    from adapterhub.errors import AdzError
    from adapterhub_full.full import Full
    from adapterhub_full.options import FullOptions

    model = AutoModelForCausalLM.from_pretrained(tiny_base.path)
    model.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(AdzError, match="stored quantised"):
        Full().attach(model, FullOptions(), prepared=False)
