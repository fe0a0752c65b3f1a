"""What needs llama.cpp itself, which is compiled, runs with ADZ_TEST_LLAMA_CPP=1 only."""

from __future__ import annotations

import os

WITH_LLAMA_CPP = os.environ.get("ADZ_TEST_LLAMA_CPP") == "1"

collect_ignore = [] if WITH_LLAMA_CPP else ["test_with_llama_cpp.py"]


def pytest_report_header():
    if not WITH_LLAMA_CPP:
        return "llama.cpp itself is not tested: ADZ_TEST_LLAMA_CPP=1 does that"
    return "with llama.cpp"
