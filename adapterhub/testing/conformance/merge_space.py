"""What a user of a merge space relies on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import torch

from adapterhub import specs
from adapterhub.protocols import Factors, InputMoments, MergedModule
from adapterhub.testing.conformance.base import Conformance, check_refusal, check_success
from adapterhub.testing.fixtures import Adz

_ROWS, _COLS = 24, 16


class _Sum:
    """The weighted sum, and the shapes that it was called with."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.options: list[Mapping[str, Any]] = []
        self.chance: list[torch.Tensor] = []

    def __call__(
        self,
        deltas: torch.Tensor,
        weights: torch.Tensor,
        coordinates: Any,
        options: Mapping[str, Any],
    ) -> torch.Tensor:
        self.shapes.append(tuple(deltas.shape))
        self.options.append(options)
        self.chance.append(coordinates.uniform(0))
        merged: torch.Tensor = torch.tensordot(weights, deltas, dims=1)
        return merged


class MergeSpaceConformance(Conformance):
    """Of a merge space: `name = "mine"`. rule: one that runs in it, for `adz merge`.

    linear: whether a weighted sum in it is the weighted sum of the updates. compresses_first:
    whether the rule works on what is compressed already, so that `error` is of the rest only.
    absent_seen: whether the rule sees adapters that lack the module, as zeros. calls: of the rule
    where it is given the whole at once.
    """

    kind: ClassVar[type[specs.Component]] = specs.MergeSpace
    rule: ClassVar[str | None] = "linear"
    linear: ClassVar[bool] = True
    compresses_first: ClassVar[bool] = False
    absent_seen: ClassVar[bool] = True
    calls: ClassVar[int] = 1

    def operands(self) -> list[Factors]:
        """(24, 16) modules of ranks 2, 4 and 0, or all of rank 2 where ranks must be equal."""
        ranks = (2, 2, 2) if self.component.ranks == "equal" else (2, 4, 0)
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        return [
            Factors(random(rank, _COLS), random(_ROWS, rank), 0.5, self._moments(random))
            for rank in ranks
        ]

    def _moments(self, random: Any) -> InputMoments | None:
        if not self.component.moments:
            return None
        return InputMoments(random(4, _COLS), random(_COLS).abs() + 0.1)

    def call(
        self,
        rank: int = 6,
        *,
        operands: Sequence[Factors] | None = None,
        rule: Any = None,
        seed: int = 0,
        whole: bool = False,
    ) -> MergedModule:
        """Merge the operands with weights 1/n."""
        given = self.operands() if operands is None else operands
        weights = torch.full((len(given),), 1 / len(given))
        merged = self.implementation(
            given, weights, rule or _Sum(), dict(self.options_of_rule()), rank=rank, seed=seed,
            module="model.layers.0.mlp.up_proj", whole=whole,
        )  # fmt: skip
        assert isinstance(merged, MergedModule), f"{type(merged).__name__} is no MergedModule"
        return merged

    def options_of_rule(self) -> Mapping[str, Any]:
        """What the rule is told, with every default filled in."""
        from adapterhub.config import validate
        from adapterhub.plugins import load_plugins

        if self.rule is None:
            return {}
        rule = load_plugins().get(specs.MergeRule, self.rule)
        model = load_plugins().load_options(rule)
        return validate(model, {}, "options").model_dump() if model else {}

    def test_result_has_shapes_and_rank(self) -> None:
        """a (k, n), b (m, k) float32, k at most the rank that was asked for."""
        for rank in (6, 3) if self.component.ranks.startswith("up-to") else (6,):
            merged = self.call(rank)
            assert merged.a.dtype == merged.b.dtype == torch.float32, "the factors are not float32"
            assert merged.a.shape[1] == _COLS, f"a is {tuple(merged.a.shape)}, not (k, {_COLS})"
            assert merged.b.shape[0] == _ROWS, f"b is {tuple(merged.b.shape)}, not ({_ROWS}, k)"
            assert merged.a.shape[0] == merged.b.shape[1] <= rank, (
                f"the rank is {merged.a.shape[0]}, {rank} was asked for"
            )
            product = merged.b @ merged.a
            assert torch.isfinite(product).all(), "NaN or infinity"

    def test_sum_is_the_sum(self) -> None:
        """With a rank that holds it, a weighted sum is exact (float64 says so)."""
        if not self.linear:
            return
        operands = self.operands()
        wanted = sum(o.scale * o.b.double() @ o.a.double() for o in operands) / len(operands)
        merged = self.call(12)
        found = merged.b.double() @ merged.a.double()
        off = float((found - wanted).norm() / torch.as_tensor(wanted).norm())
        assert off < 1e-4, f"the weighted sum is off by {off:.1e}"

    def test_error_is_what_compression_lost(self) -> None:
        """`error` and `norm` are printed, and a merge is refused or tuned by them."""
        if not self.component.ranks.startswith("up-to") or self.component.moments:
            return
        if not self.linear or self.compresses_first:
            return
        full, small = self.call(12), self.call(2)
        whole = full.b.double() @ full.a.double()
        lost = float((small.b.double() @ small.a.double() - whole).norm())
        norm = float(whole.norm())
        assert abs(small.error - lost) < 1e-3 * norm, f"error {small.error}, lost are {lost}"
        assert abs(small.norm - norm) < 1e-3 * norm, f"norm {small.norm}, it is {norm}"
        assert full.error < 1e-3 * norm, f"nothing is compressed, and error is {full.error}"

    def test_rule_sees_every_adapter(self) -> None:
        """All at once where `whole`, block by block elsewhere; absent ones are there too."""
        count = len([o for o in self.operands() if self.absent_seen or len(o.a)])
        once, blocks = _Sum(), _Sum()
        self.call(rule=once, whole=True)
        self.call(rule=blocks)
        called = len(once.shapes)
        assert called == self.calls, f"whole=True, and the rule is called {called} times"
        assert {shape[0] for shape in (*once.shapes, *blocks.shapes)} == {count}, (
            f"{count} adapters are merged, the rule sees {once.shapes[0][0]}"
        )
        rows, all_rows = (sum(s[1] for s in rule.shapes) for rule in (blocks, once))
        assert rows == all_rows, "the blocks are not the whole"
        assert all(o == self.options_of_rule() for o in once.options), "options are not passed on"

    def test_chance_is_keyed_by_the_seed(self) -> None:
        """`coordinates.uniform` gives the same numbers for the same seed, others for another."""
        drawn = []
        for seed in (0, 0, 1):
            rule = _Sum()
            self.call(rule=rule, whole=True, seed=seed)
            drawn.append(rule.chance[0])
        assert torch.equal(drawn[0], drawn[1]), "the same seed gives other numbers"
        assert not torch.equal(drawn[0], drawn[2]), "another seed gives the same numbers"
        assert all(0 <= number < 1 for number in drawn[0].flatten().tolist()), "not in [0, 1)"

    def test_threads_change_nothing(self) -> None:
        """Called from several threads it gives the same bits, and leaves the operands alone."""
        operands = self.operands()
        kept = [(o.a.clone(), o.b.clone()) for o in operands]
        first = self.call(operands=operands)
        with ThreadPoolExecutor(4) as pool:
            made = [pool.submit(self.call, operands=operands) for _ in range(8)]
            for merged in (future.result() for future in made):
                assert torch.equal(merged.a, first.a), "two calls differ"
                assert torch.equal(merged.b, first.b), "two calls differ"
        for operand, (a, b) in zip(operands, kept, strict=True):
            same = torch.equal(operand.a, a) and torch.equal(operand.b, b)
            assert same, "the space changes the factors that it was given"

    def test_adz_merges_in_it(
        self, adz: Adz, registry: Any, tiny_base: Any, tiny_adapters: list[Any]
    ) -> None:
        """`adz merge --space NAME`: a dry run stores nothing, a merge one version."""
        if self.rule is None or self.component.moments:
            return
        command = ("merge", "--rule", self.rule, "--space", self.name, "tiny-a", "tiny-b")
        before = registry.revision()
        check_success(adz(*command, "--dry-run"))
        check_refusal(adz(*command, "tiny-a"))
        assert registry.revision() == before, "--dry-run or a refusal changed the registry"
        check_success(adz(*command, "--name", "merged"))
        assert registry.resolve("merged").manifest.recipe["space"] == self.name
