"""Killed processes: nothing acknowledged is lost, nothing is damaged. TEST_KILLS of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

KILLS = int(os.environ.get("TEST_KILLS", "150"))
DRIVER = Path(__file__).with_name("kill.py")


def test_kills_lose_nothing_that_was_acknowledged(payloads: Path, scratch: Path) -> None:
    done = subprocess.run(
        [sys.executable, DRIVER, scratch, payloads, str(KILLS), "1"],
        capture_output=True, text=True, check=False, timeout=300 + KILLS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(done.stdout)
    within = sum(count for _, count in counts.values())
    kinds = ", ".join(f"{kind} {killed}" for kind, (killed, _) in counts.items())
    print(f"\nfigure: {KILLS} kills, {within} within a change ({kinds})")
    assert sum(killed for killed, _ in counts.values()) == KILLS
    # Kills that hit no change half-way would prove nothing.
    assert within > KILLS / 3
    assert all(count for _, count in counts.values()), counts
