"""What two adapters say about themselves: which facts differ, and their scores side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adapterhub.diff.sides import Side
from adapterhub.manifest import Manifest

# Where it lay and what wrote it, which changes nothing that it computes.
_NOT_COMPARED = frozenset({"base_model_name_or_path", "inference_mode", "peft_version", "revision"})


@dataclass(frozen=True, slots=True)
class Difference:
    """A fact that differs; None where one side lacks it."""

    key: str
    values: tuple[Any, Any]


@dataclass(frozen=True, slots=True)
class Scores:
    """The latest score of each on the same data, by the same metric."""

    metric: str
    data: str
    shots: int
    rows: tuple[int | None, int | None]
    values: tuple[float | None, float | None]

    @property
    def difference(self) -> float | None:
        """The second minus the first; None where one was not measured."""
        one, two = self.values
        return None if one is None or two is None else two - one


def configuration(one: Side, two: Side) -> list[Difference]:
    """What differs in adapter_config.json. An option that is off is as good as none: versions of
    PEFT write different ones."""
    return _differences(*(_options(side.config) for side in (one, two)))


def lineage(one: Side, two: Side) -> list[Difference]:
    """What differs in where they come from; nothing for directories, which do not say."""
    if one.version is None or two.version is None:
        return []
    return _differences(_origin(one.version.manifest), _origin(two.version.manifest))


def scores(one: Side, two: Side) -> list[Scores]:
    """Every evaluation that one of them has, by data and metric."""
    sides = [_scores(side) for side in (one, two)]
    keys = sorted({*sides[0], *sides[1]}, key=lambda key: (key[0], key[1], key[3], key[2]))
    return [
        Scores(
            metric=key[1],
            data=key[0],
            shots=key[3],
            rows=(_of(sides[0], key, "n"), _of(sides[1], key, "n")),
            values=(_of(sides[0], key, "score"), _of(sides[1], key, "score")),
        )
        for key in keys
    ]


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(
        _flat({key: value for key, value in config.items() if key not in _NOT_COMPARED}, "")
    )


def _origin(manifest: Manifest) -> dict[str, Any]:
    facts = {
        "method": manifest.method,
        "made by": manifest.made_by,
        "quantizer": manifest.quantizer,
        "objective": manifest.objective,
        "prompts": manifest.prompt_format,
        "base": _base(manifest),
        "parents": [f"{p.name}@{p.version} {p.digest[7:19]}" for p in manifest.parents],
        "data": [_data(entry) for entry in manifest.data],
    }
    return {**facts, **dict(_flat(manifest.recipe, "recipe."))}


def _base(manifest: Manifest) -> str:
    base = manifest.base
    weights = f" {base.digests.weights[7:19]}" if base.digests else ""
    return f"{base.name or '?'}{weights} ({base.status})"


def _data(entry: Mapping[str, Any]) -> str:
    digest = str(entry.get("sha256", "")).removeprefix("sha256:")[:12]
    return f"{entry.get('file', '?')} {digest} ({entry.get('rows', '?')} rows)"


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            # The order of module names means nothing, and PEFT writes a set.
            yield prefix + key, sorted(value)
        else:
            yield prefix + key, value


def _differences(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[Difference]:
    found = []
    for key in (*one, *(key for key in two if key not in one)):
        values = tuple(_none_where_off(side.get(key)) for side in (one, two))
        if values[0] != values[1]:
            found.append(Difference(key, (values[0], values[1])))
    return found


def _none_where_off(value: Any) -> Any:
    return None if value is False or value == [] or value == {} else value


Key = tuple[str, str, str, int]


def _scores(side: Side) -> dict[Key, Mapping[str, Any]]:
    """The latest evaluation by data file, metric, data digest and shots."""
    found: dict[Key, Mapping[str, Any]] = {}
    for attestation in side.attestations:
        body = attestation["body"]
        if attestation["kind"] != "evaluation" or "score" not in body:
            continue
        data = body.get("data", {})
        file, digest = str(data.get("file", "?")), str(data.get("sha256", ""))
        found[file, str(body.get("metric", "?")), digest, int(body.get("shots", 0))] = body
    return found


def _of(side: Mapping[Key, Mapping[str, Any]], key: Key, fact: str) -> Any:
    return side[key].get(fact) if key in side else None
