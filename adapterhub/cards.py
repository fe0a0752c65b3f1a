"""The card of a version: a README in Markdown with Hugging Face's metadata, from what is recorded.

The same version with the same attestations gives the same text. Whatever a name, a file or a
metric is called, it stays text: the metadata are written by a YAML library, and the rest is
escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml

from adapterhub.manifest import BaseLink, Manifest, Version
from adapterhub.protocols import Registry
from adapterhub.staging import home_staging, staging_folder

CARD = "README.md"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#|~&$!])")
_LICENSE = re.compile(r"^license:\s*[\"']?([A-Za-z0-9.+-]{1,64})[\"']?\s*$", re.MULTILINE)
_MOST_README = 1 << 20
_MADE_BY = {"train": "trained", "merge": "merged", "import": "imported", "convert": "converted"}
_SETTINGS = ("lr", "schedule", "warmup", "weight_decay", "clip", "batch_size", "accumulation",
             "max_length", "seed")  # fmt: skip
_MEASURED = {
    "steps": "steps",
    "tokens": "tokens seen",
    "train_loss": "training loss, mean over the steps",
    "holdout_loss_base": "held-out loss of the base, nats a token",
    "holdout_loss": "held-out loss of the adapter",
    "holdout_loss_served": "held-out loss over the base that is not quantised",
    "holdout_objective": "held-out loss of the objective",
    "holdout_accuracy": "held-out pairs told apart",
    "kept_step": "the best step, which is kept",
}


def model_card(registry: Registry, version: Version) -> str:
    """The card of a version as its manifest, its evaluations and the known bases tell it."""
    source = _hub_id(registry, version.manifest.base)
    license_name = license_of(_readme(registry, version))
    evaluations = [found["body"] for found in registry.attestations(version, "evaluation")]
    header = yaml.safe_dump(
        _metadata(version, source, license_name, evaluations),
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
    )
    sections = [
        f"# {_text(version.name)}, version {version.number}",
        _summary(version.manifest),
        "## Facts\n\n" + _table(("", ""), _facts(version, source)),
        *_origin(version.manifest),
        *_training(version.manifest),
        *_results(evaluations),
        "## How to use it\n\n" + _usage(version, source),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in _limits(version.manifest, evaluations)),
    ]
    return f"---\n{header}---\n\n" + "\n\n".join(sections) + "\n"


def license_of(readme: str) -> str | None:
    """The licence that the metadata at the head of a README name, as the Hub writes it."""
    head = readme.split("\n---", 1)[0] if readme.startswith("---") else ""
    found = _LICENSE.search(head)
    return found[1] if found else None


def _readme(registry: Registry, version: Version) -> str:
    """The README that came with an imported version; empty where there is none."""
    record = version.manifest.files.get(CARD)
    if record is None or record.size > _MOST_README:
        return ""
    with staging_folder(home_staging()) as folder:
        if not registry.copy_blob(record, folder / CARD):
            return ""
        return (folder / CARD).read_text(encoding="utf-8", errors="replace")


def _hub_id(registry: Registry, link: BaseLink) -> str | None:
    """The base's name on the Hugging Face Hub, where it came from there."""
    if link.digests is None:
        return None
    for base in registry.bases():
        # A local path is nobody else's business.
        if base.digests.weights == link.digests.weights and _HUB_ID.fullmatch(base.source):
            return base.source
    return None


def _metadata(
    version: Version,
    source: str | None,
    license_name: str | None,
    evaluations: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    manifest = version.manifest
    values: dict[str, Any] = {}
    if license_name:
        values["license"] = license_name
    if source:
        values["base_model"] = source
    if manifest.storage == "peft":
        values["library_name"] = "peft"
    tags = ["adapterhub", manifest.method, *(["merge"] if manifest.made_by == "merge" else [])]
    values["tags"] = list(dict.fromkeys(tags))
    values["pipeline_tag"] = "text-generation"
    if evaluations:
        results = [_result(evaluation) for evaluation in evaluations]
        values["model-index"] = [{"name": version.reference, "results": results}]
    return values


def _result(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    data = evaluation["data"]
    return {
        "task": {"type": "text-generation"},
        "dataset": {"type": str(data["file"]), "name": str(data["file"])},
        "metrics": [
            {
                "type": str(evaluation["metric"]),
                "value": evaluation["score"],
                "name": f"{evaluation['metric']} of {evaluation['n']} rows",
            }
        ],
    }


def _summary(manifest: Manifest) -> str:
    rank = manifest.adapter.get("rank")
    over = f" of rank {rank}" if rank else ""
    base = f" for {_text(manifest.base.name)}" if manifest.base.name else ""
    how = _MADE_BY[manifest.made_by]
    return f"An adapter of the method {_text(manifest.method)}{over}{base}, {how} with adapterhub."


def _facts(version: Version, source: str | None) -> Iterator[tuple[str, object]]:
    manifest = version.manifest
    yield "digest", version.digest
    yield "method", manifest.method
    base = manifest.base
    if base.name:
        yield "base", base.name + (f", {source} on the Hugging Face Hub" if source else "")
    if base.digests:
        yield "weights of the base", f"{base.digests.weights} ({base.status})"
    for key in sorted(manifest.adapter):
        value = manifest.adapter[key]
        yield key, ", ".join(map(str, value)) if isinstance(value, list) else value
    facts = {
        "quantizer": manifest.quantizer,
        "objective": manifest.objective,
        "prompts": manifest.prompt_format,
        "made": f"by {manifest.made_by}, {manifest.created}",
    }
    yield from ((key, value) for key, value in facts.items() if value)


def _origin(manifest: Manifest) -> Iterator[str]:
    if manifest.parents:
        rows = [(f"{p.name}@{p.version}", p.role, p.weight, p.digest) for p in manifest.parents]
        yield "## Made from\n\n" + _table(("version", "role", "weight", "digest"), rows)
    if manifest.data:
        header = ("file", "rows", "format", "sha256")
        files = [[data.get(key) for key in header] for data in manifest.data]
        yield "## Data\n\n" + _table(header, files)


def _training(manifest: Manifest) -> Iterator[str]:
    """How a trained version was made and what was measured then; no path of the machine."""
    if manifest.made_by != "train":
        return
    training = manifest.recipe.get("training", {})
    chosen = {key: training[key] for key in _SETTINGS if key in training}
    rows = [*_options(manifest.recipe.get("method", {})), *chosen.items()]
    rows += _options(manifest.recipe.get("objective", {}))
    rows += [(said, manifest.metrics[k]) for k, said in _MEASURED.items() if k in manifest.metrics]
    if rows:
        yield "## Training\n\n" + _table(("", ""), rows)
    for alert in manifest.metrics.get("alerts", ()):
        yield f"Alert while it was trained: {_text(alert)}"
    if manifest.environment:
        yield "## Environment\n\n" + _table(("", ""), sorted(manifest.environment.items()))


def _options(component: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """A component's own options, as far as they are set."""
    for key, value in component.items():
        if key != "name" and value is not None:
            parts = value if isinstance(value, list) else [value]
            yield key, ", ".join(p if isinstance(p, str) else json.dumps(p) for p in parts)


def _results(evaluations: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if evaluations:
        header = ("data", "metric", "rows", "score", "95 % interval", "the base alone")
        rows = [
            (
                found["data"]["file"],
                found["metric"],
                found["n"],
                found["score"],
                " to ".join(_cell(bound) for bound in found["interval"]),
                f"{_cell(found['base']['score'])}, {found['base']['shots']} shots",
            )
            for found in evaluations
        ]
        yield "## Results\n\n" + _table(header, rows)


def _usage(version: Version, source: str | None) -> str:
    reference = version.reference
    ours = (
        "With adapterhub, from the place where it was pushed to (URL):\n\n"
        f"```console\n$ adz pull {reference} --from URL\n$ adz serve\n"
        f'$ adz run {reference} "..."\n```'
    )
    if version.manifest.storage != "peft":
        return ours
    base = json.dumps(source or "the base model")
    theirs = (
        "With PEFT, from this directory or repository (ADAPTER):\n\n```python\n"
        "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f"base = AutoModelForCausalLM.from_pretrained({base})\n"
        "model = PeftModel.from_pretrained(base, ADAPTER)\n```"
    )
    return f"{ours}\n\n{theirs}"


def _limits(manifest: Manifest, evaluations: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if manifest.base.status == "unknown":
        yield "Which base it was made for is not known."
    else:
        yield "It is right on the base with these weights only; on others its answers are not."
    if manifest.prompt_format == "chat":
        yield "It learnt chats: prompts go through the chat template of its base."
    elif manifest.prompt_format == "plain":
        yield "It learnt plain prompts: no chat template is applied."
    if manifest.quantizer:
        yield f"The base was held as {_text(manifest.quantizer)} while it was trained."
    if evaluations:
        yield "What it scores on other data than the above was not measured."
    else:
        yield "Nobody recorded an evaluation of it."


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(_text(_cell(cell)) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(value: object) -> str:
    """One line of Markdown that shows `value` as it is."""
    return _MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))[:300]
