"""A registry with the real base SmolLM2-135M and random adapters of rank 16 on all its layers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speed.adapters import SMOLLM, write_adapter

ADZ = (sys.executable, "-m", "adapterhub.cli")
BASE = "smollm2"
LAYERS, RANK = 30, 16
PAYLOADS = 8
# An update of about a hundredth of the weights, as training makes. A larger one drives a model's
# activations out of range, and attention on denormal numbers takes half as long again.
GAIN = 1e-3


@dataclass(frozen=True)
class Zoo:
    """`home` is an ADZ_HOME; adapters `a0` to `a7` lie in it and, for plain vLLM, as `folders`."""

    home: Path
    base: Path
    folders: list[Path]

    def environment(self) -> dict[str, str]:
        """For a process that works on it."""
        return {**os.environ, "ADZ_HOME": str(self.home), "HF_HUB_OFFLINE": "1"}

    def commit(self, name: str, payload: int) -> Any:
        """One more version of `name`, with the weights of adapter `payload`."""
        from adapterhub.manifest import BaseLink, Manifest
        from adapterhub.plugins import open_registry

        with self.here():
            registry = open_registry()
            link = BaseLink(status="recorded", name=BASE, digests=registry.base(BASE).digests)
            manifest = Manifest(
                name=name,
                method="lora",
                made_by="train",
                base=link,
                prompt_format="plain",
                adapter={"rank": RANK},
            )
            return registry.commit(manifest, self.folders[payload])

    @contextmanager
    def here(self) -> Iterator[None]:
        """This process works on it."""
        before = os.environ.get("ADZ_HOME")
        os.environ["ADZ_HOME"] = str(self.home)
        try:
            yield
        finally:
            if before is None:
                del os.environ["ADZ_HOME"]
            else:
                os.environ["ADZ_HOME"] = before


def make_zoo(folder: Path, base: str) -> Zoo:
    """In `folder`, or what an earlier run left there. `base`: what `adz base add` takes."""
    zoo_folder = folder / "zoo"
    made = (zoo_folder / "made").exists()
    environment = {**os.environ, "ADZ_HOME": str(zoo_folder)}
    if not made:
        command = [*ADZ, "base", "add", BASE, base]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    shown = subprocess.run(
        [*ADZ, "base", "show", BASE, "--json"],
        env=environment, check=True, capture_output=True, text=True,
    )  # fmt: skip
    folders = [
        write_adapter(folder / f"lora-{i}", SMOLLM, LAYERS, RANK, seed=i, gain=GAIN)
        for i in range(PAYLOADS)
    ]
    zoo = Zoo(zoo_folder, Path(json.loads(shown.stdout)["path"]), folders)
    if not made:
        for i in range(PAYLOADS):
            zoo.commit(f"a{i}", i)
        (zoo_folder / "made").touch()
    return zoo


def fold(zoo: Zoo, folder: Path) -> Path:
    """The base with adapter 0 inside its weights, as PEFT folds it in."""
    if (folder / "config.json").exists():
        return folder
    code = (
        "import sys, torch; from peft import PeftModel; "
        "from transformers import AutoModelForCausalLM, AutoTokenizer; b, a, o = sys.argv[1:]; "
        "m = AutoModelForCausalLM.from_pretrained(b, dtype=torch.float32); "
        "PeftModel.from_pretrained(m, a).merge_and_unload().save_pretrained(o); "
        "AutoTokenizer.from_pretrained(b).save_pretrained(o)"
    )
    command = [sys.executable, "-c", code, str(zoo.base), str(zoo.folders[0]), str(folder)]
    subprocess.run(command, check=True, env=zoo.environment(), capture_output=True)
    return folder
