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
    print(f"killed, and of these within the change: {counts}")
    assert sum(killed for killed, _ in counts.values()) == KILLS
    # Kills that hit no change half-way would prove nothing.
    assert sum(within for _, within in counts.values()) > KILLS / 3
    assert all(within for _, within in counts.values()), counts
