"""Our side, beside side_mlflow.py and side_hub_cache.py, with the same operations.

    python side_adapterhub.py '{"adapters": [DIR, ...], "folder": DIR, "rounds": N, "base": {...}}'

A commit runs every gate, hashes every file, and is on the disk when it returns. Prints seconds as
JSON; `first_directory` is the first use of a version, which makes a verified copy to open.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from adapterhub import __version__
from adapterhub.manifest import BaseRecord
from adapterhub_registry.store import LocalRegistry
from registry_speed.adapters import manifest
from registry_speed.timing import after_sync, seconds

PAGE = 50


def main() -> None:
    """Measure one side and print it."""
    given = json.loads(sys.argv[1])
    registry = LocalRegistry(Path(given["folder"]))
    base = BaseRecord.model_validate(given["base"])
    registry.add_base(base)
    adapters = [Path(path) for path in given["adapters"]]
    found: dict[str, Any] = {"version": __version__}
    registry.commit(manifest("warm", base), adapters[0])
    found["commit"] = [
        after_sync(lambda i=i, p=p: registry.commit(manifest(f"adapter-{i}", base), p))
        for i, p in enumerate(adapters)
    ]
    names = [f"adapter-{index}" for index in range(len(adapters))]
    found["alias"] = [seconds(lambda n=n: registry.tag(n, "prod")) for n in names]
    rounds = range(given["rounds"])
    found["resolve"] = [
        seconds(lambda n=n: registry.resolve(f"{n}@prod")) for _ in rounds for n in names
    ]
    found["first_directory"] = [seconds(lambda n=n: _directory(registry, n)) for n in names]
    found["directory"] = [seconds(lambda n=n: _directory(registry, n)) for n in names]
    found["list"] = [seconds(registry.listing) for _ in rounds]
    print(json.dumps(found))


def _directory(registry: LocalRegistry, name: str) -> None:
    path = registry.path(registry.resolve(f"{name}@prod"))
    assert Path(path, "adapter_model.safetensors").is_file()


if __name__ == "__main__":
    main()
