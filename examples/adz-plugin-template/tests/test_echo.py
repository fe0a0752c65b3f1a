"""The engine `echo`."""

from __future__ import annotations

from adapterhub.testing import EngineConformance


class TestEcho(EngineConformance):
    """What every engine promises."""

    name = "echo"

    def test_it_says_who_was_asked(self, base, home, tmp_path):
        """The version that a reference means now."""
        self.commit(base, tmp_path, 1)
        with self.serving(base, home) as server:
            assert server.text("sql") == "sql@1: The quick brown"
