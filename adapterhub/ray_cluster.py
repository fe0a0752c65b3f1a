"""Which Ray cluster is used: the one that RAY_ADDRESS names, or a new one on this machine.

Without an address Ray itself would join whatever cluster runs on this machine.
"""

from __future__ import annotations

import os
from typing import Any

from adapterhub.protocols import Progress


def named_cluster() -> str | None:
    """What RAY_ADDRESS names, None for a cluster that is started here and ends with the command."""
    address = os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address


def cluster_options(processes: int, progress: Progress) -> dict[str, Any]:
    """What `ray.init` is told; a note says which cluster is joined.

    processes: how many workers or replicas are to run, each on a core.
    """
    address = named_cluster()
    if address is not None:
        progress.note(f"joining the Ray cluster at {address}, which RAY_ADDRESS names")
        return {"address": address}
    # Its own count would leave some waiting where there are few cores.
    cores = max(os.cpu_count() or 1, processes)
    return {"address": "local", "num_cpus": cores, "include_dashboard": False}
