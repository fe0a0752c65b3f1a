"""What a server tells about itself.

request.py follows one request through a server, residency.py which adapters lie where, metrics.py
counts and shows it to Prometheus, log.py writes a line for each request, reading.py reads the
figures of a running server for `adz ps` and `adz top`.

An engine says what it knows through `current_request()`: which version answers, how many tokens
came in and went out, and when the first one was there.
"""

from __future__ import annotations

from adapterhub.serve.metrics.metrics import Metrics, exposition
from adapterhub.serve.metrics.request import ServedRequest, current_request
from adapterhub.serve.metrics.residency import Residency

__all__ = ["Metrics", "Residency", "ServedRequest", "current_request", "exposition"]
