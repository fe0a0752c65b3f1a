"""A StatefulSet whose replicas each keep a registry of their own, and a Service before them.

A registry is SQLite on a local disk, so replicas share no volume: each has its own, and a
sidecar pulls what was pushed to the remote since.
"""

from __future__ import annotations

from typing import Any

from adapterhub.deploy.subject import DATA, PORT, SECRET_KEYS, Subject

_USER = 1000


def kubernetes_documents(subject: Subject) -> list[dict[str, Any]]:
    """The Service and the StatefulSet."""
    return [_service(subject), _stateful_set(subject)]


def labels(subject: Subject) -> dict[str, str]:
    """What selects the replicas."""
    return {"app.kubernetes.io/name": "adapterhub", "app.kubernetes.io/instance": subject.name}


def _service(subject: Subject) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": subject.name, "labels": labels(subject)},
        "spec": {
            "selector": labels(subject),
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def _stateful_set(subject: Subject) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": subject.name, "labels": labels(subject)},
        "spec": {
            "serviceName": subject.name,
            "replicas": subject.replicas,
            # They do not know of each other.
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels(subject)},
            "template": {"metadata": {"labels": labels(subject)}, "spec": _pod(subject)},
            "volumeClaimTemplates": [
                {
                    "metadata": {"name": "data"},
                    "spec": {
                        "accessModes": ["ReadWriteOnce"],
                        "resources": {"requests": {"storage": f"{subject.gibibytes}Gi"}},
                    },
                }
            ],
        },
    }


def _pod(subject: Subject) -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": 120,
        "initContainers": [
            _container(subject, "prepare", ["sh", "-ec", subject.prepare]),
            # One that restarts always is a sidecar: it starts after `prepare`, and ends last.
            _container(subject, "follow", ["sh", "-ec", subject.follow])
            | {"restartPolicy": "Always"},
        ],
        "containers": [_server(subject)],
        "volumes": [
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        ],
    }


def _server(subject: Subject) -> dict[str, Any]:
    probe = {"httpGet": {"path": "/health", "port": "http"}}
    container = _container(subject, "server", subject.serve)
    container["ports"] = [{"name": "http", "containerPort": PORT}]
    container["env"].append(_secret(subject, "ADZ_SERVE_API_KEY", "api-key"))
    # A large model takes its time: 20 minutes.
    container["startupProbe"] = {**probe, "periodSeconds": 5, "failureThreshold": 240}
    ready = {"httpGet": {"path": "/ready", "port": "http"}}
    container["readinessProbe"] = {**ready, "periodSeconds": 5}
    container["livenessProbe"] = {**probe, "periodSeconds": 20, "failureThreshold": 6}
    if subject.gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": subject.gpus}}
    return container


def _container(subject: Subject, name: str, command: list[str]) -> dict[str, Any]:
    environment: list[dict[str, Any]] = [
        {"name": key, "value": value} for key, value in subject.environment.items()
    ]
    environment += [_secret(subject, key, key, optional=True) for key in SECRET_KEYS]
    return {
        "name": name,
        "image": subject.image,
        "command": command,
        "env": environment,
        "volumeMounts": [
            {"name": "data", "mountPath": DATA},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _secret(subject: Subject, variable: str, key: str, *, optional: bool = False) -> dict[str, Any]:
    reference: dict[str, Any] = {"name": f"{subject.name}-keys", "key": key}
    if optional:
        reference["optional"] = True
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}
