"""A payload, the base it fits, and the gates run on it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import BaseRecord, Manifest
from adapterhub_registry.gates import check_payload


@pytest.fixture
def payload(make_payload: Callable[..., Path]) -> Path:
    return make_payload()


@pytest.fixture
def base(make_base: Callable[..., BaseRecord]) -> BaseRecord:
    return make_base()


@pytest.fixture
def check(
    payload: Path, make_manifest: Callable[..., Manifest], base: BaseRecord
) -> Callable[..., None]:
    """Run the gates on the payload, with its base unless told otherwise."""

    def run(*, known: bool = True, **changes: Any) -> None:
        check_payload(payload, make_manifest(**changes), base if known else None)

    return run


@pytest.fixture
def refused(check: Callable[..., None]) -> Callable[..., None]:
    """Assert that the gates refuse the payload with a message that holds this text."""

    def run(message: str, **options: Any) -> None:
        with pytest.raises(AdzError, match=re.escape(message)) as error:
            check(**options)
        assert error.value.exit_code == EXIT_VERIFICATION

    return run


@pytest.fixture
def edit_config() -> Callable[..., None]:
    """Change entries of adapter_config.json."""

    def edit(directory: Path, **changes: Any) -> None:
        path = directory / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


@pytest.fixture
def edit_tensors() -> Callable[..., None]:
    """Replace, add, or with None remove tensors."""

    def edit(directory: Path, changes: dict[str, np.ndarray | None]) -> None:
        path = directory / "adapter_model.safetensors"
        tensors = {**load_file(path), **changes}
        save_file({n: t for n, t in tensors.items() if t is not None}, path)

    return edit
