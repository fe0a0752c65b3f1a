"""Parquet, read by batches of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from adapterhub.data.containers import Row
from adapterhub.errors import AdzError

BATCH = 1024


def read(path: Path) -> Iterator[Row]:
    """Row by row; a row is named by its number from 1."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", without_nulls(row)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise AdzError(f"{path} is no Parquet file that can be read: {reason}") from error


def without_nulls(value: Any) -> Any:
    """Mappings without the keys that have no value: Arrow gives every row the keys of all."""
    if isinstance(value, dict):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    return [without_nulls(part) for part in value] if isinstance(value, list) else value


def write(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    """Batch by batch, with the columns and types of the first; AdzError for a row that differs."""
    import pyarrow
    from pyarrow import parquet

    writer = None
    try:
        while batch := [dict(row) for row in islice(rows, BATCH)]:
            table = pyarrow.Table.from_pylist(batch, schema=writer.schema if writer else None)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    except pyarrow.ArrowException as error:
        reason = str(error).partition("\n")[0]
        raise AdzError(f"{path}: the rows differ in their types: {reason}") from error
    finally:
        if writer:
            writer.close()
