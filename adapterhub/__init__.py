"""adapterhub: train many adapters on one base, keep, merge and serve them.

Everything here is loaded on first use, so that `import adapterhub` stays light.
"""

from __future__ import annotations

__version__ = "0.1.0"

# Without `typing`, whose import takes as long as a quick Ctrl-C after `adz`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from adapterhub.errors import AdzError
    from adapterhub.hookspecs import hookimpl
    from adapterhub.hub import Hub

__all__ = ["AdzError", "Hub", "__version__", "hookimpl"]

_HOMES = {
    "AdzError": "adapterhub.errors",
    "Hub": "adapterhub.hub",
    "hookimpl": "adapterhub.hookspecs",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'adapterhub' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
