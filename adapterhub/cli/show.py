"""`adz show`: everything about one version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from adapterhub.cli.output import (
    format_size,
    format_table,
    format_weights,
    json_option,
    print_result,
)

if TYPE_CHECKING:
    from adapterhub.manifest import BaseLink, FileRecord, Manifest, Version
    from adapterhub.protocols import Lease, LogEntry, Registry

    Attestations = Sequence[Mapping[str, Any]]


@click.command(short_help="Show one version.")
@click.argument("reference")
@click.option("--path", is_flag=True, help="Print only the directory that PEFT and vLLM open.")
@click.option("--card", is_flag=True, help="Print only the model card.")
@json_option
def command(reference: str, path: bool, card: bool, as_json: bool) -> None:
    """Show what the version REFERENCE is, from what it was made and what was found about it."""
    from adapterhub.errors import usage_error
    from adapterhub.plugins import open_registry

    if path and card:
        raise usage_error("--path and --card exclude each other", "give one of them")
    registry = open_registry()
    version = registry.resolve(reference)
    if path:
        directory = str(registry.path(version))
        print_result({"path": directory}, directory, as_json=as_json)
        return
    if card:
        from adapterhub.cards import model_card

        text = model_card(registry, version)
        print_result({"card": text}, text.rstrip("\n"), as_json=as_json)
        return
    attestations = registry.attestations(version)
    leases = [lease for lease in registry.leases() if lease.version == version.reference]
    history = [entry for entry in registry.log(version.name) if entry.version == version.number]
    splits = _splits(registry, version)
    value = {
        "reference": version.reference,
        "digest": version.digest,
        "aliases": version.aliases,
        "splits": splits,
        "source": _source(history),
        "manifest": version.manifest.model_dump(mode="json", exclude_none=True),
        "attestations": attestations,
        "leases": [{"holder": lease.holder, "until": lease.until} for lease in leases],
    }
    sections = _sections(version, splits, attestations, leases, history)
    print_result(value, "\n\n".join(sections), as_json=as_json)


def _splits(registry: Registry, version: Version) -> dict[str, Mapping[int, int]]:
    """The split aliases of which the version is a part: alias -> version -> weight."""
    found = registry.splits(version.name)
    parts = {alias: weights for alias, weights in found.items() if version.number in weights}
    return {alias.partition("@")[2]: weights for alias, weights in parts.items()}


def _sections(
    version: Version,
    splits: Mapping[str, Mapping[int, int]],
    attestations: Attestations,
    leases: Sequence[Lease],
    history: Sequence[LogEntry],
) -> Iterator[str]:
    manifest = version.manifest
    whole = [alias for alias in version.aliases if alias not in splits]
    shown = [*whole, *(f"{alias} {format_weights(w)}" for alias, w in splits.items())]
    title = version.reference + (f"  ({'; '.join(shown)})" if shown else "")
    yield f"{title}\n{_pairs(_facts(version, attestations, leases, history))}"
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
    evaluations = [a for a in attestations if a["kind"] == "evaluation"]
    if evaluations:
        yield _evaluations(evaluations)
    for attestation in attestations:
        if attestation["kind"] not in ("evaluation", "signature"):
            heading = f"{attestation['kind']}  {_time(attestation['time'])}"
            yield f"{heading}\n{_pairs(_flat(attestation['body']))}"
    yield f"see also: adz log {version.name}, adz lineage {version.reference}"


def _facts(
    version: Version,
    attestations: Attestations,
    leases: Sequence[Lease],
    history: Sequence[LogEntry],
) -> dict[str, str]:
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
        "made by": f"{_maker(manifest)}, {_time(manifest.created)}",
        "imported from": _origin(manifest),
        "pulled from": _source(history) or "",
        "signed by": _signers(attestations),
        "needed by": ", ".join(f"{le.holder} until {_time(le.until)}" for le in leases),
    }
    return {key: value for key, value in facts.items() if value}


def _method(manifest: Manifest) -> str:
    """Such as `lora over nf4`, and what it was told that is no default of the quantizer."""
    if not manifest.quantizer:
        return manifest.method
    return f"{manifest.method} over {manifest.quantizer}{_options(manifest)}"


def _options(manifest: Manifest) -> str:
    """The quantizer's options that are no defaults; none where its plugin is gone."""
    import json

    from adapterhub import specs
    from adapterhub.errors import AdzError
    from adapterhub.plugins import load_plugins

    given = {k: v for k, v in (manifest.recipe.get("quantizer") or {}).items() if k != "name"}
    try:
        component = load_plugins().get(specs.Quantizer, str(manifest.quantizer))
        fields = load_plugins().load_options(component).model_fields if given else {}
    except AdzError:
        return ""
    told = [
        f"{k}={json.dumps(v)}" for k, v in given.items() if k in fields and v != fields[k].default
    ]
    return f" ({', '.join(told)})" if told else ""


def _maker(manifest: Manifest) -> str:
    """How it was made, and a merge by which rule."""
    rule = manifest.recipe.get("rule") if manifest.made_by == "merge" else None
    space = manifest.recipe.get("space")
    return manifest.made_by + (f" ({rule}{f' in {space}' if space else ''})" if rule else "")


def _origin(manifest: Manifest) -> str:
    """The repository of the Hub or the run that an import came from, where it was noted."""
    recipe = manifest.recipe
    if manifest.made_by != "import" or not isinstance(recipe.get("source"), str):
        return ""
    commit = f"@{str(recipe['commit'])[:12]}" if "commit" in recipe else ""
    step = f", step {recipe['step']}" if "step" in recipe else ""
    return f"{recipe['source']}{commit}{step}"


def _base(base: BaseLink) -> str:
    if base.digests is None:
        return "unknown: it is neither served nor merged"
    return f"{base.name or '?'} ({base.status}, weights {base.digests.weights[7:19]})"


def _source(history: Sequence[LogEntry]) -> str | None:
    """Where a version was pulled from, if it was not made here."""
    return next((entry.source for entry in history if entry.action == "pull"), None)


def _signers(attestations: Attestations) -> str:
    """Each key once: its file and the beginning of its fingerprint."""
    bodies = [a["body"] for a in attestations if a["kind"] == "signature"]
    keys = {str(body.get("key", "?")): str(body.get("file", "")) for body in bodies}
    return ", ".join(f"{file} ({key[:19]})" for key, file in keys.items())


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


def _evaluations(attestations: Attestations) -> str:
    """One line a score, in the order of the data; the base's beside it."""
    rows = []
    for body in (attestation["body"] for attestation in attestations):
        data, base = body.get("data", {}), body.get("base", {})
        low, high = (*body.get("interval", ()), None, None)[:2]
        rows.append(
            (
                f"  {data.get('file', '?')}",
                body.get("metric", "?"),
                _number(body.get("score")),
                "" if low is None else f"{round(low, 4):g} to {round(high, 4):g}",
                _number(base.get("score")),
                _number(body.get("n")),
                _number(body.get("shots")),
            )
        )
    header = ("evaluations", "metric", "score", "95 %", "base", "rows", "shots")
    return format_table(header, sorted(rows))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif _are_mappings(value):
            flat[prefix + key] = "; ".join(" ".join(_flat(v).values()) for v in value[:3])
        elif isinstance(value, list | tuple) and len(value) > 8:
            flat[prefix + key] = f"{len(value)} values"
        else:
            flat[prefix + key] = _number(value)
    return flat


def _are_mappings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _time(text: str) -> str:
    return text[:19].replace("T", " ")


def _pairs(pairs: Mapping[str, str]) -> str:
    width = max((len(key) for key in pairs), default=0)
    return "\n".join(f"  {key.ljust(width)}  {value}" for key, value in pairs.items())
