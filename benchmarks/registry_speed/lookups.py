"""How long pages, filters and references take in a large registry, in process and warm."""

from __future__ import annotations

ASKED = {"page": 2.0, "filter": 1.0, "resolve": 0.5}
PAGE = 50
ROUNDS = 300
WARM = 20
