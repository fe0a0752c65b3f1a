"""One server and what fills its volume, for Docker Compose."""

from __future__ import annotations

from typing import Any

from adapterhub.deploy.subject import DATA, PORT, SECRET_KEYS, Subject
from adapterhub.errors import usage_error

_HEALTH = (
    f"import urllib.request as r; r.urlopen('http://127.0.0.1:{PORT}/health', timeout=5).close()"
)


def compose_documents(subject: Subject) -> list[dict[str, Any]]:
    """The compose file. Raises a usage error for several replicas: nothing spreads requests."""
    if subject.replicas != 1:
        raise usage_error(
            "a compose file runs one replica", "leave out --replicas, or take --manifest k8s"
        )
    server = _service(subject, subject.serve) | {
        "restart": "unless-stopped",
        "ports": [f"127.0.0.1:{PORT}:{PORT}"],
        "depends_on": {"prepare": {"condition": "service_completed_successfully"}},
        "healthcheck": {
            "test": ["CMD", "python3", "-c", _HEALTH],
            "interval": "10s",
            "start_period": "20m",
        },
        "stop_grace_period": "2m",
        "shm_size": "1gb",
    }
    server["environment"]["ADZ_SERVE_API_KEY"] = "${ADZ_API_KEY:?set ADZ_API_KEY}"
    if subject.gpus:
        device = {"driver": "nvidia", "count": subject.gpus, "capabilities": ["gpu"]}
        server["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    follow = _service(subject, ["sh", "-ec", _escaped(subject.follow)]) | {
        "restart": "unless-stopped",
        "depends_on": {"prepare": {"condition": "service_completed_successfully"}},
    }
    prepare = _service(subject, ["sh", "-ec", _escaped(subject.prepare)]) | {"restart": "no"}
    return [
        {
            "name": subject.name,
            "services": {"prepare": prepare, "follow": follow, "server": server},
            "volumes": {"data": {}},
        }
    ]


def _service(subject: Subject, command: list[str]) -> dict[str, Any]:
    # What stands in the shell that calls docker compose, empty where it does not.
    passed = {key: f"${{{key}:-}}" for key in SECRET_KEYS}
    return {
        "image": subject.image,
        "command": command,
        "environment": {**subject.environment, **passed},
        "volumes": [f"data:{DATA}"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }


def _escaped(script: str) -> str:
    # Compose replaces $NAME itself.
    return script.replace("$", "$$")
