"""The same replicas as a pool of the Gateway API's inference extension, as llm-d deploys it."""

from __future__ import annotations

from typing import Any

from adapterhub.deploy.kubernetes import kubernetes_documents, labels
from adapterhub.deploy.subject import PORT, Subject

GATEWAY = "inference-gateway"
"""The Gateway that the route is attached to; llm-d's own is called so."""

_PICKER_PORT = 9002


def llm_d_documents(subject: Subject) -> list[dict[str, Any]]:
    """The Service and the StatefulSet, an InferencePool and an HTTPRoute to it."""
    return [*kubernetes_documents(subject), _pool(subject), _route(subject)]


def picker(subject: Subject) -> str:
    """The Service of the endpoint picker, which llm-d's chart installs."""
    return f"{subject.name}-epp"


def _pool(subject: Subject) -> dict[str, Any]:
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": {"name": subject.name, "labels": labels(subject)},
        "spec": {
            "selector": {"matchLabels": labels(subject)},
            "targetPorts": [{"number": PORT}],
            "endpointPickerRef": {"name": picker(subject), "port": {"number": _PICKER_PORT}},
        },
    }


def _route(subject: Subject) -> dict[str, Any]:
    backend = {
        "group": "inference.networking.k8s.io",
        "kind": "InferencePool",
        "name": subject.name,
    }
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": subject.name, "labels": labels(subject)},
        "spec": {
            "parentRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": GATEWAY}
            ],
            "rules": [
                {
                    "matches": [{"path": {"type": "PathPrefix", "value": "/v1"}}],
                    "backendRefs": [backend],
                }
            ],
        },
    }
