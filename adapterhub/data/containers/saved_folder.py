"""A folder that `Dataset.save_to_disk` of Hugging Face's `datasets` wrote; memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapterhub.data.containers import Row
from adapterhub.data.containers.parquet import without_nulls
from adapterhub.errors import AdzError, usage_error


def read(path: Path) -> Iterator[Row]:
    """Row by row; of a folder with several splits one must be named."""
    if (path / "dataset_dict.json").is_file():
        splits = sorted(p.parent.name for p in path.glob("*/state.json"))
        raise usage_error(
            f"{path} holds the splits {', '.join(splits)}", f"name one, such as {path / splits[0]}"
        )
    if not (path / "state.json").is_file():
        raise usage_error(
            f"{path} is a directory, not a data file",
            "a directory that datasets' save_to_disk wrote would do",
        )
    import datasets

    try:
        data = datasets.load_from_disk(str(path))
    except Exception as error:  # pyarrow, json, fsspec and datasets raise what they like
        reason = str(error).partition("\n")[0]
        raise AdzError(f"{path} cannot be read by datasets: {reason}") from error
    for number, row in enumerate(data, 1):
        yield f"{path} row {number}", without_nulls(row)


def write(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    """Never: the name of a file says what is written, and a folder has none."""
    raise usage_error(f"{path} is a directory", "name a file, such as train.jsonl")
