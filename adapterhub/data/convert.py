"""Writing a data set in another format, or as another kind of file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from adapterhub import specs
from adapterhub.data.containers import kind_of, write_rows
from adapterhub.data.dataset import DataSet, read_examples
from adapterhub.errors import AdzError, usage_error
from adapterhub.plugins import load_plugins
from adapterhub.protocols import WritableFormat


def convert_data(
    source: Path,
    target: Path,
    to_format: str | None,
    format_name: str | None,
    *,
    columns: Mapping[str, str],
) -> dict[str, Any]:
    """Write `source` to `target`; returns what was read and written.

    Raises AdzError for a row that the format cannot hold; `target` is then not there.
    """
    kind_of(target)
    if target.exists():
        raise usage_error(f"{target} is there already", "choose another name, or remove it")
    data = read_examples(source, format_name, columns=columns)
    plugins = load_plugins()
    component = plugins.get(specs.Format, (to_format or data.format).replace("-", "_"))
    if component.kind != data.kind:
        formats = plugins.components(specs.Format).values()
        fits = ", ".join(sorted(f.name for f in formats if f.kind == data.kind))
        raise usage_error(
            f"{data.format} rows cannot be written as {component.name}: "
            "something of them would be lost or made up",
            f"they can be as {fits}",
        )
    layout = plugins.load_implementation(component)()
    if not isinstance(layout, WritableFormat):
        raise usage_error(f"the format {component.name} can be read only")
    # Beside the target under another name: a failure leaves nothing that looks whole.
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")
    try:
        write_rows(partial, _rows(data, layout, component.name))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return {"from": data.format, "to": component.name, "rows": data.rows, "file": str(target)}


def _rows(data: DataSet, layout: WritableFormat, name: str) -> Iterator[dict[str, Any]]:
    for number, example in enumerate(data.examples, 1):
        try:
            yield layout.row(example)
        except ValueError as error:
            raise AdzError(f"{data.file} row {number} cannot be written as {name}: {error}") from (
                error
            )
