"""The files as YAML, each with what is to be done before and what nobody has tried."""

from __future__ import annotations

from typing import Any, Literal

import yaml

from adapterhub.deploy.compose import compose_documents
from adapterhub.deploy.kubernetes import kubernetes_documents
from adapterhub.deploy.llm_d import GATEWAY, llm_d_documents, picker
from adapterhub.deploy.subject import Subject

Kind = Literal["k8s", "llm-d", "compose"]

_DOCUMENTS = {"k8s": kubernetes_documents, "llm-d": llm_d_documents, "compose": compose_documents}
_UNTRIED = "Checked against the published schemas; not deployed anywhere."
_GPU = "GPU unproven: nobody has run this on one."


def documents(kind: Kind, subject: Subject) -> list[dict[str, Any]]:
    """What is deployed, as plain values."""
    return _DOCUMENTS[kind](subject)


def render(kind: Kind, subject: Subject) -> str:
    """The YAML, with a comment before it."""
    values = documents(kind, subject)
    lines = [*_before(kind, subject), _UNTRIED, *([_GPU] if subject.gpus else [])]
    comment = "".join(f"# {line}\n" for line in lines)
    return comment + yaml.safe_dump_all(values, sort_keys=False, allow_unicode=True, width=100)


def _before(kind: Kind, subject: Subject) -> list[str]:
    if kind == "compose":
        return ["First: export ADZ_API_KEY=..., which clients then send."]
    lines = [
        f"First: kubectl create secret generic {subject.name}-keys --from-literal=api-key=...",
        "(and HF_TOKEN, ADZ_OCI_USERNAME, ADZ_OCI_PASSWORD, where the Hub or the registry asks).",
    ]
    if kind == "llm-d":
        lines += [
            f"The Gateway {GATEWAY} and the endpoint picker {picker(subject)} are llm-d's charts'.",
            "A picker that scores by /metrics must send the API key there.",
        ]
    return lines
