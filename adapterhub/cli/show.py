"""`adz show`: everything about one version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import format_size, format_table, json_option, print_result

if TYPE_CHECKING:
    from adapterhub.manifest import BaseLink, FileRecord, Manifest, Version


@click.command(short_help="Show one version.")
@click.argument("reference")
@click.option("--path", is_flag=True, help="Print only the directory that PEFT and vLLM open.")
@click.option("--card", is_flag=True, help="Print only the card, as it is pushed and exported.")
@json_option
def command(reference: str, path: bool, card: bool, as_json: bool) -> None:
    """Show what the version REFERENCE is, from what it was made and what was found about it."""
    from adapterhub.plugins import open_registry

    registry = open_registry()
    version = registry.resolve(reference)
    if path:
        directory = str(registry.path(version))
        print_result({"path": directory}, directory, as_json=as_json)
        return
    if card:
        from adapterhub.cards import model_card

        text = model_card(registry, version)
        print_result({"card": text}, text.rstrip(), as_json=as_json)
        return
    attestations = registry.attestations(version)
    value = {
        "reference": version.reference,
        "digest": version.digest,
        "aliases": version.aliases,
        "manifest": version.manifest.model_dump(mode="json", exclude_none=True),
        "attestations": attestations,
    }
    print_result(value, "\n\n".join(_sections(version, attestations)), as_json=as_json)


def _sections(version: Version, attestations: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    manifest = version.manifest
    title = version.reference + (f"  ({', '.join(version.aliases)})" if version.aliases else "")
    yield f"{title}\n{_pairs(_facts(version))}"
    yield "files\n" + _files(manifest.files | manifest.artifacts, set(manifest.artifacts))
    if manifest.parents:
        rows = [(f"  {p.name}@{p.version}", p.role, _number(p.weight)) for p in manifest.parents]
        yield format_table(("made from", "role", "weight"), rows)
    if manifest.data:
        rows = [
            (f"  {d.get('file', '?')}", d.get("rows", ""), d.get("format", ""))
            for d in manifest.data
        ]
        yield format_table(("data", "rows", "format"), rows)
    if manifest.metrics:
        yield f"metrics\n{_pairs(_flat(manifest.metrics))}"
    for attestation in attestations:
        heading = f"{attestation['kind']}  {attestation['time']}"
        # The bundle of a signature is for machines.
        body = {key: value for key, value in attestation["body"].items() if key != "bundle"}
        yield f"{heading}\n{_pairs(_flat(body))}"


def _facts(version: Version) -> dict[str, str]:
    manifest = version.manifest
    # The size first, the rest as it was recorded.
    order = sorted(manifest.adapter, key=lambda key: (key != "rank", key != "alpha"))
    adapter = ", ".join(f"{key} {_number(manifest.adapter[key])}" for key in order)
    facts = {
        "digest": version.digest,
        "method": _method(manifest),
        "adapter": adapter,
        "base": _base(manifest.base),
        "objective": manifest.objective or "",
        "prompts": manifest.prompt_format or "",
        "made by": f"{manifest.made_by}, {manifest.created}",
    }
    return {key: value for key, value in facts.items() if value}


def _method(manifest: Manifest) -> str:
    return manifest.method + (f" over {manifest.quantizer}" if manifest.quantizer else "")


def _base(base: BaseLink) -> str:
    if base.digests is None:
        return "unknown: it is neither served nor merged"
    return f"{base.name or '?'} ({base.status}, weights {base.digests.weights[7:19]})"


def _files(files: Mapping[str, FileRecord], artifacts: set[str]) -> str:
    rows = [
        (
            f"  {name}",
            format_size(record.size),
            record.sha256[:19],
            "artifact" if name in artifacts else "",
        )
        for name, record in files.items()
    ]
    return "\n".join(format_table(("", "", "", ""), rows).splitlines()[1:])


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple) and len(value) > 8:
            flat[prefix + key] = f"{len(value)} values"
        else:
            flat[prefix + key] = _number(value)
    return flat


def _number(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _pairs(pairs: Mapping[str, str]) -> str:
    width = max(len(key) for key in pairs)
    return "\n".join(f"  {key.ljust(width)}  {value}" for key, value in pairs.items())
