"""A base that ships in an installed Python package, found without importing it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from adapterhub.errors import AdzError, usage_error


def locate_package(name: str) -> Path:
    """The GGUF file or the model directory in the package `name`."""
    # find_spec imports the parents of a dotted name, so only a plain one is looked up.
    if not name.isidentifier():
        raise usage_error(f"'pkg:{name}' does not name a Python package", "give its import name")
    try:
        spec = importlib.util.find_spec(name)
    # Raised for modules without a spec, such as __main__.
    except ValueError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise usage_error(f"the Python package {name} is not installed", f"pip install {name}")
    roots = [Path(location) for location in spec.submodule_search_locations]
    configs = [path.parent for root in roots for path in sorted(root.rglob("config.json"))]
    found = [directory for directory in configs if any(directory.glob("*.safetensors"))]
    found += [path for root in roots for path in sorted(root.rglob("*.gguf"))]
    if not found:
        raise AdzError(f"the Python package {name} carries no GGUF file and no safetensors model")
    if len(found) > 1:
        choices = ", ".join(str(path) for path in found[:4])
        raise usage_error(
            f"the Python package {name} carries {len(found)} models",
            f"give the path of one: {choices}",
        )
    return found[0]
