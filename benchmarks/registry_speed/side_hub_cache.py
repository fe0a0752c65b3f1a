"""The Hugging Face cache's side: huggingface_hub's own code with the network taken out.

    python side_hub_cache.py '{"adapters": [DIR, ...], "folder": DIR, "rounds": N, "sync": false}'

A commit is `hf_hub_download` of both files into an empty cache folder, where metadata come from
memory and the bytes from the adapter's folder, as fast as Python copies a file. Prints seconds as
JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, BinaryIO

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import huggingface_hub
from huggingface_hub import file_download

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from registry_speed.timing import after_sync, seconds

FILES = ("adapter_config.json", "adapter_model.safetensors")
REVISION = "prod"


def main() -> None:
    """Measure one side and print it."""
    given = json.loads(sys.argv[1])
    cache = Path(given["folder"])
    adapters = [Path(path) for path in given["adapters"]]
    found: dict[str, Any] = {"version": huggingface_hub.__version__}
    # The first probes the file system for symbolic links.
    _commit(cache, "org/warm", adapters[0], sync=False)
    found["commit"] = [
        after_sync(lambda r=r, p=p: _commit(cache, r, p, sync=given["sync"]))
        for r, p in _named(adapters)
    ]
    names = [name for name, _ in _named(adapters)]
    rounds = range(given["rounds"])
    found["resolve"] = [seconds(lambda n=n: _resolve(cache, n)) for _ in rounds for n in names]
    found["directory"] = [seconds(lambda n=n: _directory(cache, n)) for n in names]
    found["list"] = [seconds(lambda: huggingface_hub.scan_cache_dir(cache)) for _ in rounds]
    print(json.dumps(found))


def _commit(cache: Path, repository: str, adapter: Path, *, sync: bool) -> None:
    commit = hashlib.sha1(repository.encode()).hexdigest()  # what names a commit in git

    def metadata(*, filename: str, **_: Any) -> tuple[Any, ...]:
        size = (adapter / filename).stat().st_size
        etag = hashlib.sha256(f"{repository} {filename}".encode()).hexdigest()
        return filename, etag, commit, size, None, None

    def copy(url: str, target: BinaryIO, **_: Any) -> None:
        with (adapter / url).open("rb") as source:
            shutil.copyfileobj(source, target, 1 << 20)
        if sync:
            target.flush()
            os.fsync(target.fileno())

    file_download._get_metadata_or_catch_error = metadata
    file_download.http_get = copy
    for name in FILES:
        path = huggingface_hub.hf_hub_download(repository, name, revision=REVISION, cache_dir=cache)
    if sync:
        snapshot = Path(path).parent
        storage = snapshot.parent.parent
        for folder in (storage / "blobs", snapshot, storage / "refs"):
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def _resolve(cache: Path, name: str) -> None:
    path = huggingface_hub.try_to_load_from_cache(
        name, "adapter_model.safetensors", cache_dir=cache, revision=REVISION
    )
    assert isinstance(path, str)


def _directory(cache: Path, name: str) -> None:
    path = huggingface_hub.snapshot_download(
        name, revision=REVISION, cache_dir=cache, local_files_only=True
    )
    assert Path(path, "adapter_model.safetensors").is_file()


def _named(adapters: list[Path]) -> list[tuple[str, Path]]:
    return [(f"org/adapter-{index}", path) for index, path in enumerate(adapters)]


if __name__ == "__main__":
    main()
