"""What a user of a merge rule relies on."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import torch

from adapterhub import specs
from adapterhub.testing.conformance.base import Conformance, check_refusal, check_success
from adapterhub.testing.conformance.coordinates import PlainCoordinates
from adapterhub.testing.fixtures import Adz

_ROWS, _COLS = 24, 16


class MergeRuleConformance(Conformance):
    """Of a merge rule: `name = "mine"`."""

    kind: ClassVar[type[specs.Component]] = specs.MergeRule
    section: ClassVar[str] = "options"
    homogeneous: ClassVar[bool] = True
    """Whether twice the weights make twice the result."""

    @property
    def count(self) -> int:
        """How many adapters it is tried with."""
        return 2 if self.component.kind == "pairwise" else 3

    def call(
        self, deltas: torch.Tensor, weights: list[float] | torch.Tensor, rows: slice | None = None
    ) -> torch.Tensor:
        """The rule's result for these rows of the (n, rows, cols) `deltas`."""
        rows = rows or slice(0, deltas.shape[1])
        options: dict[str, Any] = self.made_options().model_dump()
        known = {"density": self.component.default_density, "seed": 0}
        options |= {name: known[name] for name in self.component.parameters}
        given = torch.as_tensor(weights, dtype=torch.float32)
        block = deltas[:, rows].clone()
        result = self.implementation(block, given, PlainCoordinates(deltas, rows), options)
        assert isinstance(result, torch.Tensor), f"it returns {type(result).__name__}, no tensor"
        return result

    def deltas(self, seed: int = 0) -> torch.Tensor:
        """(n, 24, 16) float32, of rank 4 as adapters are."""
        generator = torch.Generator().manual_seed(seed)
        left = torch.randn(self.count, _ROWS, 4, generator=generator)
        return left @ torch.randn(self.count, 4, _COLS, generator=generator)

    def equal_weights(self) -> list[float]:
        """1/n each."""
        return [1 / self.count] * self.count

    def test_result_has_shape_and_dtype(self) -> None:
        """(rows, cols) float32, and numbers."""
        result = self.call(self.deltas(), self.equal_weights())
        assert result.shape == (_ROWS, _COLS), f"{tuple(result.shape)}, not (rows, cols)"
        assert result.dtype == torch.float32, f"{result.dtype}, not float32"
        assert torch.isfinite(result).all(), "NaN or infinity"

    def test_it_is_deterministic(self) -> None:
        """The same arguments give the same bits, whatever the global random state."""
        torch.manual_seed(1)
        first = self.call(self.deltas(), self.equal_weights())
        torch.manual_seed(2)
        second = self.call(self.deltas(), self.equal_weights())
        assert torch.equal(first, second), "two calls differ: take coordinates.uniform for chance"

    def test_blocks_of_rows_make_the_whole(self) -> None:
        """An elementwise rule gives the same bits in blocks of rows as at once."""
        if self.component.kind != "elementwise":
            return
        deltas, weights = self.deltas(), self.equal_weights()
        blocks = [self.call(deltas, weights, slice(i, i + 8)) for i in range(0, _ROWS, 8)]
        assert torch.equal(torch.cat(blocks), self.call(deltas, weights)), (
            "a result depends on the block: ask coordinates about the whole, "
            "or declare the rule spectral"
        )

    def test_weights_are_honoured(self) -> None:
        """Other weights, another result; a weight that is not used is declared `weighted=False`."""
        if not self.component.weighted:
            return
        deltas = self.deltas()
        weights = [0.7, *[0.3 / (self.count - 1)] * (self.count - 1)]
        mirrored = self.call(deltas, weights[::-1])
        given = self.call(deltas, weights)
        assert not torch.allclose(given, mirrored), "the weights change nothing"
        if self.homogeneous:
            twice = self.call(deltas, [2 * w for w in weights])
            assert torch.allclose(twice, 2 * given, rtol=1e-4, atol=1e-5), (
                "twice the weights do not make twice the result: are they normalised?"
            )

    def test_negative_weights(self) -> None:
        """They mean something where the descriptor says so, and give numbers."""
        if self.component.negative_weights and self.component.weighted:
            weights = [1.0, *[-0.5] * (self.count - 1)]
            result = self.call(self.deltas(), weights)
            assert torch.isfinite(result).all(), "NaN or infinity"
            flipped = self.call(self.deltas(), [abs(w) for w in weights])
            assert not torch.allclose(result, flipped), "the sign of a weight changes nothing"

    def test_arguments_stay_as_they_are(self) -> None:
        """Weights are shared by all modules and threads."""
        weights = torch.tensor(self.equal_weights())
        before = weights.clone()
        self.call(self.deltas(), weights)
        assert torch.equal(weights, before), "the rule changes the weights that it was given"

    def test_absent_modules_are_zero(self) -> None:
        """An adapter that lacks a module is all zeros there."""
        deltas = self.deltas()
        deltas[-1] = 0
        result = self.call(deltas, self.equal_weights())
        assert torch.isfinite(result).all(), "NaN or infinity where an adapter is all zeros"
        zeros = self.call(torch.zeros_like(deltas), self.equal_weights())
        assert not zeros.any(), "of nothing it makes something"

    def test_workers_change_nothing(self, adz: Adz, tiny_adapters: list[Any]) -> None:
        """Adapters of different ranks and modules merge, to the same bytes with any workers, in
        each of its spaces."""
        if needs_moments(self.component):
            return
        names = [version.name for version in tiny_adapters][: self.count]
        for space in self.component.spaces:
            payloads = set()
            for workers in ("1", "4"):
                command = ("merge", f"--{self.name}", *names, "--space", space)
                flags = ("--workers", workers, "--name", f"merged-{space}-{workers}", "--json")
                made = json.loads(check_success(adz(*command, *flags)))
                payloads.add(made["payload"])
            assert len(payloads) == 1, f"in the space {space} the bytes depend on the workers"

    def test_plugin_is_in_the_lineage(
        self, adz: Adz, registry: Any, tiny_adapters: list[Any]
    ) -> None:
        """A merged version says which release of the plugin made it."""
        if needs_moments(self.component):
            return
        from adapterhub.plugins import load_plugins

        names = [version.name for version in tiny_adapters][: self.count]
        check_success(adz("merge", "--rule", self.name, *names, "--name", "merged"))
        recorded = registry.resolve("merged").manifest.environment
        wanted = load_plugins().versions_of(self.component)
        assert wanted.items() <= recorded.items(), f"{wanted} is not in {recorded}"

    def test_dry_run_commits_nothing(
        self, adz: Adz, registry: Any, tiny_adapters: list[Any]
    ) -> None:
        """`adz merge --dry-run` checks all and stores nothing."""
        names = [version.name for version in tiny_adapters][: self.count]
        before = registry.revision()
        done = adz("merge", f"--{self.name}", *names, "--dry-run")
        if not needs_moments(self.component):
            check_success(done)
        assert registry.revision() == before, "--dry-run changed the registry"

    def test_what_it_refuses_is_one_line(
        self, adz: Adz, registry: Any, tiny_adapters: list[Any]
    ) -> None:
        """Too few adapters, a weight without meaning, an unknown option: one line, no version."""
        names = [version.name for version in tiny_adapters]
        before = registry.revision()
        check_refusal(adz("merge", f"--{self.name}", names[0], "nobody"))
        check_refusal(adz("merge", f"--{self.name}", *names[:2], "-o", "options.no_such_option=1"))
        if not self.component.negative_weights:
            check_refusal(adz("merge", f"--{self.name}", *names[:2], "--weights", "1,-1"))
        if self.component.kind == "pairwise":
            check_refusal(adz("merge", f"--{self.name}", *names))
        assert registry.revision() == before, "a refused merge changed the registry"


def needs_moments(rule: specs.MergeRule) -> bool:
    """Whether its first space measures by input moments, which the tiny adapters lack."""
    from adapterhub.plugins import load_plugins

    return load_plugins().get(specs.MergeSpace, rule.spaces[0]).moments
