"""The rules and spaces in float64, by the papers' formulas and with loops over elements.

None of it calls what it checks. A rule or a space that is registered and not described here
fails `test_references.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from adapterhub.protocols import Factors

Deltas = Sequence[np.ndarray]
Weights = Sequence[float]
Options = Mapping[str, Any]
Rule = Callable[[Deltas, Weights, Options], np.ndarray]


def exact(operand: Factors) -> np.ndarray:
    return operand.scale * operand.b.double().numpy() @ operand.a.double().numpy()


def weighted_sum(deltas: Deltas, weights: Weights, options: Options = {}) -> np.ndarray:  # noqa: B006
    return sum(w * d for w, d in zip(weights, deltas, strict=True))


def descending(delta: np.ndarray) -> np.ndarray:
    """Flat positions, the largest magnitude first."""
    return np.argsort(-np.abs(delta).ravel(), kind="stable")


def only(delta: np.ndarray, positions: np.ndarray) -> np.ndarray:
    kept = np.zeros(delta.size)
    kept[positions] = delta.ravel()[positions]
    return kept.reshape(delta.shape)


def trimmed(delta: np.ndarray, options: Options) -> np.ndarray:
    return only(delta, descending(delta)[: max(1, int(options["density"] * delta.size))])


def draws(delta: np.ndarray, adapter: int, options: Options) -> np.ndarray:
    """One draw of the generator for all elements of an adapter."""
    text = f"{options['seed']}\0{options['module']}\0{adapter}".encode()
    key = int.from_bytes(hashlib.sha256(text).digest()[:16], "little")
    generator = np.random.Generator(np.random.Philox(key=key))
    return generator.random(delta.size, dtype=np.float32).reshape(delta.shape)


def dropped(delta: np.ndarray, adapter: int, options: Options) -> np.ndarray:
    return delta * (draws(delta, adapter, options) < options["density"]) / options["density"]


def elected(deltas: Deltas, weights: Weights) -> np.ndarray:
    """The weighted mean of those with the elected sign, times the sum of the weights."""
    merged = np.zeros(deltas[0].shape)
    for place in np.ndindex(merged.shape):
        values = [(w, w * d[place]) for w, d in zip(weights, deltas, strict=True)]
        sign = 1 if sum(v for _, v in values) >= 0 else -1
        agreeing = [(w, v) for w, v in values if v * sign > 0]
        if agreeing:
            merged[place] = sum(v for _, v in agreeing) / sum(w for w, _ in agreeing)
    return sum(weights) * merged


def ties(deltas: Deltas, weights: Weights, options: Options) -> np.ndarray:
    return elected([trimmed(d, options) for d in deltas], weights)


def dare(deltas: Deltas, weights: Weights, options: Options) -> np.ndarray:
    return weighted_sum([dropped(d, i, options) for i, d in enumerate(deltas)], weights)


def dare_ties(deltas: Deltas, weights: Weights, options: Options) -> np.ndarray:
    return elected([dropped(d, i, options) for i, d in enumerate(deltas)], weights)


def magnitude_prune(deltas: Deltas, weights: Weights, options: Options) -> np.ndarray:
    return weighted_sum([trimmed(d, options) for d in deltas], weights)


def breadcrumbs(deltas: Deltas, weights: Weights, options: Options) -> np.ndarray:
    outliers = int(options["gamma"] * deltas[0].size)
    last = outliers + int(options["density"] * deltas[0].size)
    return weighted_sum([only(d, descending(d)[outliers:last]) for d in deltas], weights)


def della(deltas: Deltas, weights: Weights, options: Options) -> np.ndarray:
    kept = [np.zeros(d.shape) for d in deltas]
    for adapter, delta in enumerate(deltas):
        numbers = draws(delta, adapter, options)
        for i, row in enumerate(delta):
            for place, j in enumerate(sorted(range(len(row)), key=lambda j: abs(row[j]))):
                rank = place / (len(row) - 1)
                keep = options["density"] - options["epsilon"] + 2 * options["epsilon"] * rank
                if numbers[i, j] < keep:
                    kept[adapter][i, j] = row[j] / keep
    return elected(kept, weights)


def triples(matrix: np.ndarray, size: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The SVD without what is only rounding."""
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    kept = s > 1e-9 * max(size, np.linalg.norm(matrix))
    return u[:, kept], s[kept], vh[kept]


def whitened(matrix: np.ndarray) -> np.ndarray:
    """matrix (matrix^T matrix)^(-1/2), as TSV-Merge says it."""
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    kept = values > 1e-12
    root = vectors[:, kept] @ np.diag(values[kept] ** -0.5) @ vectors[:, kept].T
    return matrix @ root


def tsv(deltas: Deltas, weights: Weights, options: Options) -> np.ndarray:
    parts = [triples(d) for d in deltas]
    counts = [min(len(s), max(1, int(options["density"] * len(s)))) for _, s, _ in parts]
    if sum(counts) > min(deltas[0].shape):
        present = sum(1 for _, s, _ in parts if len(s))
        counts = [min(count, min(deltas[0].shape) // present) for count in counts]
    u = np.hstack([u[:, :count] for (u, _, _), count in zip(parts, counts, strict=True)])
    v = np.hstack([vh[:count].T for (_, _, vh), count in zip(parts, counts, strict=True)])
    s = [w * x for (_, s, _), w, c in zip(parts, weights, counts, strict=True) for x in s[:c]]
    return whitened(u) @ np.diag(s) @ whitened(v).T


def iso_c(deltas: Deltas, weights: Weights, options: Options) -> np.ndarray:
    u, s, vh = triples(weighted_sum(deltas, weights))
    return np.mean(s) * u @ vh


def iso_cts(deltas: Deltas, weights: Weights, options: Options) -> np.ndarray:
    tasks = [w * d for w, d in zip(weights, deltas, strict=True) if w * np.linalg.norm(d)]
    u, s, vh = triples(sum(tasks))
    rank, fraction = len(s), options["common_space_fraction"]
    specific = min(rank // len(tasks), round((rank - int(rank * fraction)) / len(tasks)))
    common = rank - specific * len(tasks)
    lefts, values, rights = [u[:, :common]], [s[:common]], [vh[:common].T]
    for task in tasks:
        rest = task - u[:, :common] @ u[:, :common].T @ task
        own_u, own_s, own_vh = triples(rest, np.linalg.norm(task))
        lefts.append(own_u[:, :specific])
        values.append(own_s[:specific])
        rights.append(own_vh[:specific].T)
    flat = np.mean(np.concatenate(values))
    return flat * whitened(np.hstack(lefts)) @ whitened(np.hstack(rights)).T


def slerp(deltas: Deltas, weights: Weights, options: Options) -> np.ndarray:
    first, second = deltas
    t = weights[1] / sum(weights)
    sizes = np.linalg.norm(first) * np.linalg.norm(second)
    if not sizes:
        return weighted_sum(deltas, weights)
    angle = np.arccos(np.vdot(first, second) / sizes)
    parts = np.sin((1 - t) * angle) * first + np.sin(t * angle) * second
    return sum(weights) * parts / np.sin(angle)


# Rules that are the same in every orthonormal basis: the updates themselves say what comes out.
TURNING: dict[str, Rule] = {
    "cat": weighted_sum,
    "iso-c": iso_c,
    "iso-cts": iso_cts,
    "linear": weighted_sum,
    "pico": weighted_sum,
    "regmean": weighted_sum,
    "slerp": slerp,
    "tsv": tsv,
}
# Rules that look at single elements, in the coordinates of the space.
ELEMENTWISE: dict[str, Rule] = {
    "breadcrumbs": breadcrumbs,
    "dare": dare,
    "dare_ties": dare_ties,
    "della": della,
    "magnitude_prune": magnitude_prune,
    "ties": ties,
}


def in_dense(rule: Rule, factors: list[Factors], weights: Weights, options: Options) -> np.ndarray:
    return rule([exact(f) for f in factors], weights, options)


def in_core(rule: Rule, factors: list[Factors], weights: Weights, options: Options) -> np.ndarray:
    """Core Space: U^T W_i V with the singular vectors of all B and of all A."""
    u, _, _ = triples(np.hstack([f.scale * f.b.double().numpy() for f in factors]))
    _, _, vh = triples(np.vstack([f.a.double().numpy() for f in factors]))
    return u @ rule([u.T @ exact(f) @ vh.T for f in factors], weights, options) @ vh


def in_knots(rule: Rule, factors: list[Factors], weights: Weights, options: Options) -> np.ndarray:
    """KnOTS: the updates side by side share U S, and the rule sees the V_i."""
    u, s, vh = triples(np.hstack([exact(f) for f in factors]))
    vh[np.abs(vh) < 1e-12] = 0
    return u @ np.diag(s) @ rule(np.split(vh, len(factors), axis=1), weights, options)


def in_ctm(rule: Rule, factors: list[Factors], weights: Weights, options: Options) -> np.ndarray:
    """Compress then merge: Tucker-2 of the rescaled updates, by HOSVD and HOOI on dense ones."""
    deltas = [exact(f) for f in factors]
    norms = [np.linalg.norm(d) for d in deltas if d.any()]
    target = [0.25 * norm + 0.75 * np.mean(norms) for norm in norms]
    scaled = [d * t / n for d, t, n in zip([d for d in deltas if d.any()], target, norms,
                                           strict=True)]  # fmt: skip
    rank = min(options["rank"], sum(f.a.shape[0] for f in factors))

    def strongest(parts: list[np.ndarray]) -> np.ndarray:
        return np.linalg.svd(np.hstack(parts), full_matrices=False)[0][:, :rank]

    u, v = strongest(scaled), strongest([d.T for d in scaled])
    errors = [np.inf]
    total = np.linalg.norm(scaled)
    while len(errors) < 3 or errors[-2] - errors[-1] >= 1e-6:
        u = strongest([d @ v for d in scaled])
        v = strongest([d.T @ u for d in scaled])
        rest = [d - u @ u.T @ d @ v @ v.T for d in scaled]
        errors.append(np.linalg.norm(rest) / total)
    return u @ rule([u.T @ d @ v for d in deltas], weights, options) @ v.T


def in_pico(rule: Rule, factors: list[Factors], weights: Weights, options: Options) -> np.ndarray:
    """Pico: I + U diag(alpha - 1) U^T on each update, then the adapters' norm again."""
    beside = np.hstack([f.scale * f.b.double().numpy() for f in factors])
    u, sigma, _ = np.linalg.svd(beside, full_matrices=False)
    tasks = len([f for f in factors if f.a.shape[0]])
    alpha = 1 / (1 + (tasks - 1) * sigma**2 / np.sum(sigma**2))
    calibrate = np.eye(len(u)) + u @ np.diag(alpha - 1) @ u.T
    merged = rule([calibrate @ exact(f) for f in factors], weights, options)
    norm = sum(abs(w) * np.linalg.norm(exact(f)) for w, f in zip(weights, factors, strict=True))
    return norm / np.linalg.norm(merged) * merged


def in_inputs(rule: Rule, factors: list[Factors], weights: Weights, options: Options) -> np.ndarray:
    """RegMean: each update times its inputs' moment, and the inverse of the moments' sum."""
    acted, total = [], np.zeros((factors[0].a.shape[1],) * 2)
    for factor, weight in zip(factors, weights, strict=True):
        if factor.moments is None:
            acted.append(np.zeros((factor.b.shape[0], factor.a.shape[1])))
            continue
        sketch = factor.moments.sketch.double().numpy()
        moment = sketch.T @ sketch + np.diag(factor.moments.diagonal.double().numpy())
        moment *= options["shrinkage"] + (1 - options["shrinkage"]) * np.eye(len(moment))
        acted.append(exact(factor) @ moment)
        total += weight * moment
    total += options["ridge"] * np.trace(total) / len(total) * np.eye(len(total))
    return rule(acted, weights, options) @ np.linalg.inv(total)


# The updates themselves, up to a rotation.
ROTATED = {"concat": in_dense, "core": in_dense, "dense": in_dense, "inputs": in_inputs,
           "pico": in_pico}  # fmt: skip
COORDINATES = {"core": in_core, "ctm": in_ctm, "dense": in_dense, "knots": in_knots}


def reference(
    rule: str, space: str, factors: list[Factors], weights: Weights, options: Options
) -> np.ndarray:
    """(m, n) float64: what the pair comes to without compression; `rank` is among the options
    for a space that compresses before. KeyError: it is not described here."""
    if rule in TURNING:
        return ROTATED[space](TURNING[rule], factors, weights, options)
    return COORDINATES[space](ELEMENTWISE[rule], factors, weights, options)
