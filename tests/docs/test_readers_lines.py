"""Lines in which names of the reader's own stand: they work for whoever has what they name."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import boto3
import pytest
import yaml
from moto.server import ThreadedMotoServer

from adapterhub.cli import main
from adapterhub.cli.defaults import defaults_file
from adapterhub.exchange.remotes import open_remote
from adapterhub.plugins import open_registry
from adapterhub.testing.adapters import commit_tiny_lora

from ..free_ports import free_ports
from .page_output import ROOT, console_steps, outline
from .shell_lines import READERS, not_run, other_lines

ROWS = (ROOT / "examples" / "data" / "american.train.jsonl").read_text().splitlines(keepends=True)


class Reader:
    """Somebody in a folder of his own, with bases from a Hub, data, adapters and remotes."""

    def __init__(self, folder: Path, base_dir: Path, hub: Any, oci: str) -> None:
        self._files = {file.name: file.read_bytes() for file in base_dir.iterdir()}
        self.folder = folder
        self.hub = hub
        self.oci = oci

    def adz(self, line: str, *, notes: bool = True) -> str:
        """What it prints, by default with what it writes to stderr; it must succeed."""
        printed, errors = io.StringIO(), io.StringIO()
        with redirect_stdout(printed), redirect_stderr(printed if notes else errors):
            code = main(shlex.split(line))
        assert code == 0, f"adz {line}\n{printed.getvalue()}{errors.getvalue()}"
        return printed.getvalue()

    def run(self, line: str) -> str:
        """What a line of a page prints: `adz` runs in this process, which has torch loaded."""
        everything = ""
        # Registries elsewhere are one on this machine; nothing else is replaced.
        line = re.sub(r"oci://[\w./]+", self.oci, line)
        for command in line.partition(" # ")[0].split(";"):
            words, _, file = command.partition(" > ")
            program, _, rest = words.strip().partition(" ")
            if program == "adz":
                rest = rest.replace("~", str(Path.home()))
                printed = self.adz(rest, notes=not file)
            else:
                path = shutil.which(program, path=f"{Path(sys.executable).parent}:/usr/bin:/bin")
                assert path, program
                printed = subprocess.run(
                    [path, *shlex.split(rest)], check=True, capture_output=True, text=True
                ).stdout
            if file:
                Path(file.strip()).write_text(printed)
            everything += printed
        return everything

    def base(self, name: str, repository: str) -> None:
        """The tiny base, which is at the Hub under this name."""
        self.hub.put(repository, self._files)
        self.adz(f"base add {name} {repository}")

    def loras(self, *names: str) -> None:
        """The next version of each, over the only base."""
        registry = open_registry()
        (base,) = registry.bases()
        for name in names:
            seed = sum(map(ord, name)) + len(list(self.folder.glob("made-*")))
            folder = self.folder / f"made-{seed}"
            commit_tiny_lora(base, folder, name, 4, seed=seed)

    def peft(self, folder: str, config: Any) -> None:
        """What PEFT saves of an adapter of this configuration that does something."""
        import torch
        from peft import get_peft_model
        from transformers import AutoModelForCausalLM

        config.task_type, config.target_modules = "CAUSAL_LM", ["q_proj", "v_proj"]
        (base,) = open_registry().bases()
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base.path), config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.add_(torch.randn_like(parameter), alpha=0.05)
        model.save_pretrained(folder)


@pytest.fixture
def bucket_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """S3 on this machine: the environment leads s3fs and boto3 there."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    yield
    server.stop()


@pytest.fixture
def reader(
    adz: Any, tmp_path: Path, tiny_base_dir: Path, hub: Any, registry_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Reader]:  # fmt: skip
    folder = tmp_path / "reader"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    yield Reader(folder, tiny_base_dir, hub, f"oci://127.0.0.1:{registry_port}/{tmp_path.name}")
    adz("stop", "--all", "--now")


def readme(reader: Reader) -> None:
    """Data of two tasks, an OFT, and adapters that lie around. Lines of training say nothing of
    steps and `adz serve` nothing of engines: settings of his own do."""
    from peft import OFTConfig

    Path("tickets.jsonl").write_text("".join(ROWS[:16]))
    Path("tickets.test.jsonl").write_text("".join(ROWS[16:20]))
    Path("french.jsonl").write_text("".join(ROWS[20:36]))
    reader.base("qwen", "Qwen/Qwen3-0.6B")
    settings = {
        "train": {"option": ["training.max_steps=1"]},
        "serve": {"engine": "transformers", "port": free_ports(1)[0]},
    }
    defaults_file().write_text(yaml.safe_dump(settings))
    reader.adz("train --data french.jsonl")
    reader.adz("train --data tickets.jsonl")
    reader.peft("an-oft", OFTConfig(oft_block_size=4))
    reader.loras("old")
    reader.adz(f"export old {Path.home()}/outputs/old")
    reader.adz("rm old --yes")
    Path.home().joinpath(".cache", "huggingface").mkdir(parents=True)


def convert(reader: Reader) -> None:
    from peft import LoraConfig, OFTConfig

    reader.base("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct")
    reader.peft("dora", LoraConfig(r=4, use_dora=True))
    reader.adz("import dora --name tickets-dora --base smollm2")
    reader.peft("my-oft", OFTConfig(oft_block_size=4))
    reader.loras("a", "b")
    reader.adz("merge --ties a b --name all-ties")


def deploying(reader: Reader) -> None:
    reader.base("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct")
    reader.loras("sql", "french", "sql")
    reader.adz("tag sql@1 prod")


def export(reader: Reader) -> None:
    reader.base("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct")
    reader.loras("sql", "spelling")


def registry(reader: Reader) -> None:
    """Two versions, of which the Hub has one; somebody's adapter there; and an empty bucket."""
    from peft import LoraConfig

    reader.base("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct")
    reader.loras("sql", "sql")
    reader.adz("tag sql@1 prod")
    reader.adz("push sql --to hub://my-organisation")
    reader.peft("somebody", LoraConfig(r=4))
    files = {path.name: path.read_bytes() for path in Path("somebody").iterdir()}
    reader.hub.put("organisation/name", files)
    boto3.resource("s3").create_bucket(Bucket="bucket")


def serving_live(reader: Reader) -> None:
    reader.base("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct")
    reader.loras(*["sql"] * 8)
    reader.adz("tag sql@7 prod")


def signing(reader: Reader) -> None:
    reader.base("smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct")
    reader.loras(*["team/sql"] * 7)


def fetch_signature(reader: Reader) -> None:
    """What "lies at the remote" where the page says."""
    version = open_remote(reader.oci).find("team/sql", "7")
    assert version is not None
    assert version.signature is not None
    Path("sql-7.sig").write_bytes(version.signature)


def clear_away(reader: Reader) -> None:
    """The Modelfile of the page's other example."""
    Path("Modelfile").unlink()


# Who reads a page, and what his registry and his folder have when he has done all of it.
DONE = {
    "README": (readme, ["an-oft-lora", "both", "french", "tickets"], ["both-1-q8_0.gguf"]),
    "convert": (
        convert,
        ["a", "all-ties", "b", "my-oft-lora", "tickets-dora", "tickets-dora-lora"],
        ["plain"],
    ),
    "deploying": (deploying, ["french", "sql"], ["smollm2.yaml"]),
    "export": (export, ["spelling", "sql"], ["Modelfile", "sp16.gguf", "sql-1-lora-f16.gguf"]),
    "registry": (registry, ["mine", "other", "sql"], []),
    "serving-live": (serving_live, ["sql"], []),
    "signing": (signing, ["team/sql"], ["release.pem", "release.pub.pem", "sql-7", "sql-7.sig"]),
}
BEFORE = {"model_signing": fetch_signature, "adz export sql --lora-gguf": clear_away}


@pytest.mark.parametrize("page", READERS, ids=lambda page: page.stem)
def test_the_lines_of_the_page_work(page: Path, reader: Reader, bucket_server: None) -> None:
    prepare, names, files = DONE[page.stem]
    prepare(reader)
    there = set(reader.folder.iterdir())
    steps = console_steps(page.read_text(encoding="utf-8"))
    shown = {line: outline(output) for line, output in steps}
    for line in other_lines(page):
        if not not_run(page, line):
            for beginning, step in BEFORE.items():
                if line.startswith(beginning):
                    step(reader)
            assert outline(reader.run(line)) == shown.get(line, ANY), line
    assert sorted(open_registry().names()) == names
    assert {path.name for path in set(reader.folder.iterdir()) - there} == set(files)
