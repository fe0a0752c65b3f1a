"""The CPU kernels against a float64 product for each token, in every mix of adapters."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")

from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU  # noqa: E402

from adapterhub_vllm.cpu_factors import pack  # noqa: E402
from adapterhub_vllm.cpu_lora import GroupedPunicaWrapper, embedding_only  # noqa: E402
from adapterhub_vllm.cpu_rows import FEW_ROWS, find_rows  # noqa: E402

SLOTS, PADDED, WIDTH = 4, 16, 24
SLICES = (12, 8, 8)
# The true rank of the adapter in each slot; its rows beyond are zero, as vLLM pads them.
RANKS = (3, 16, 8, 1)
IDS = [901, 902, 903, 904]

BASE = -1
MIXES = {
    "one adapter": [1] * 6,
    "base only": [BASE] * 5,
    "base between adapters": [BASE, 0, 0, BASE, 2, BASE],
    "interleaved": [0, 1, 0, BASE, 1, 3, 2, 0],
    "one token of the base": [BASE],
    "last slot and base": [3, BASE],
    "each its own": [3, 1, 0, 2],
    "slots far apart": [0, 3, 0, 3],
    "many rows and few": [1] * (FEW_ROWS + 2) + [2, BASE, 0],
    "stretches that stand apart": ([0] * (FEW_ROWS + 1) + [1, BASE]) * 2 + [0] * 3,
    "many rows, all apart": [0, 1] * (FEW_ROWS + 1),
}
LAYOUTS = {"as vLLM lays them": False, "packed": True}


class Layer:
    """The stacked weights of one LoRA layer with an output of several slices."""

    def __init__(
        self, seed: int, slices: tuple[int, ...] = SLICES, *, packed: bool = False
    ) -> None:
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> Any:
            return torch.randn(*shape, generator=generator)

        self.slices = slices
        self.a = tuple(random(SLOTS, 1, PADDED, WIDTH) for _ in slices)
        self.b = tuple(random(SLOTS, 1, width, PADDED) for width in slices)
        for slot, rank in enumerate(RANKS):
            for a, b in zip(self.a, self.b, strict=True):
                a[slot, :, rank:] = 0
                b[slot, :, :, rank:] = 0
        if packed:
            self._pack()

    def _pack(self) -> None:
        """As in vLLM: the layer is laid anew while it is empty, then written into."""
        weights = (*self.a, *self.b)
        layer = SimpleNamespace(lora_a_stacked=self.a, lora_b_stacked=self.b)
        pack(layer)
        self.a, self.b = layer.lora_a_stacked, layer.lora_b_stacked
        for place, weight in zip((*self.a, *self.b), weights, strict=True):
            assert place.shape == weight.shape
            assert place.data_ptr() != weight.data_ptr()
            place.copy_(weight)

    def delta(self, x: Any, slots: list[int]) -> Any:
        """What each token's adapter adds, token by token in float64."""
        rows = []
        for row, slot in zip(x.double(), slots, strict=True):
            parts = [
                torch.zeros(width, dtype=torch.float64)
                if slot == BASE
                else b[slot, 0].double() @ (a[slot, 0].double() @ row)
                for a, b, width in zip(self.a, self.b, self.slices, strict=True)
            ]
            rows.append(torch.cat(parts))
        return torch.stack(rows)


def wrapper(slots: list[int], kind: Any = GroupedPunicaWrapper, *, prefill: bool = True) -> Any:
    """A wrapper that was told which adapter each token belongs to, as vLLM tells it."""
    made = kind(1024, 1024, "cpu")
    tell(made, slots, prefill=prefill)
    return made


def tell(made: Any, slots: list[int], *, prefill: bool = True, ids: list[int] = IDS) -> None:
    """Hand the mapping over in vLLM's form: ids of adapters, 0 for the base."""
    mapping = tuple(0 if slot == BASE else ids[slot] for slot in slots)
    made.update_metadata(
        SimpleNamespace(index_mapping=mapping, prompt_mapping=mapping, is_prefill=prefill),
        list(ids),
        SLOTS + 1,
        320,
    )


def inputs(count: int) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(count)
    return (
        torch.randn(count, WIDTH, generator=generator),
        torch.randn(count, sum(SLICES), generator=generator),
    )


@pytest.mark.parametrize("prefill", [True, False], ids=["prefill", "decode"])
@pytest.mark.parametrize("packed", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("slots", MIXES.values(), ids=MIXES)
def test_linear_equals_a_float64_product_for_each_token(
    slots: list[int], packed: bool, prefill: bool
) -> None:
    layer = Layer(1, packed=packed)
    x, y = inputs(len(slots))
    expected = y.double() + layer.delta(x, slots)
    wrapper(slots, prefill=prefill).add_lora_linear(y, x, layer.a, layer.b, 1.0, SLICES)
    torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("packed", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("slots", MIXES.values(), ids=MIXES)
def test_rows_of_the_base_are_left_bit_for_bit(slots: list[int], packed: bool) -> None:
    layer = Layer(2, packed=packed)
    x, y = inputs(len(slots))
    before = y.clone()
    wrapper(slots).add_lora_linear(y, x, layer.a, layer.b, 1.0, SLICES)
    base = [row for row, slot in enumerate(slots) if slot == BASE]
    assert torch.equal(y[base], before[base])


def test_the_wrapper_of_vllm_changes_rows_of_the_base() -> None:
    """Why ours exists. When this fails, vLLM has been cured and the kernel is only faster."""
    slots = MIXES["base between adapters"]
    layer = Layer(3)
    x, y = inputs(len(slots))
    before = y.clone()
    wrapper(slots, PunicaWrapperCPU).add_lora_linear(y, x, layer.a, layer.b, 1.0, SLICES)
    base = [row for row, slot in enumerate(slots) if slot == BASE]
    assert not torch.allclose(y[base], before[base])


@pytest.mark.parametrize("slots", MIXES.values(), ids=MIXES)
def test_shrink_and_expand_together_equal_linear(slots: list[int]) -> None:
    layer = Layer(4)
    x, y = inputs(len(slots))
    expected = y.double() + layer.delta(x, slots)
    made = wrapper(slots)
    low = torch.full((len(SLICES), len(slots), PADDED), 7.0)
    made.add_shrink(low, x, layer.a, 1.0)
    made.add_expand(y, tuple(low), layer.b, SLICES, add_inputs=True)
    torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("slots", MIXES.values(), ids=MIXES)
def test_embedding_expands_the_looked_up_rows(slots: list[int]) -> None:
    layer = Layer(5, (20,))
    low = torch.randn(len(slots), PADDED, generator=torch.Generator().manual_seed(5))
    y = torch.ones(len(slots), 20)
    expected = y.double()
    for row, slot in enumerate(slots):
        if slot != BASE:
            expected[row] += layer.b[0][slot, 0].double() @ low[row].double()
    wrapper(slots).add_lora_embedding(y, low, layer.b[0], add_inputs=True)
    torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("slots", MIXES.values(), ids=MIXES)
def test_rows_that_brought_embeddings_are_passed_over(slots: list[int]) -> None:
    """As vLLM's layer calls it, where a request of the batch is a soft prompt."""
    layer = Layer(9, (40,))
    made = wrapper(slots)
    low = torch.randn(len(slots), PADDED, generator=torch.Generator().manual_seed(9))
    whole = torch.zeros(len(slots), 40)
    made.add_lora_embedding(whole, low, layer.b[0])
    rows = torch.arange(0, len(slots), 2)
    indices = made._embeddings_indices[rows]
    y = torch.zeros(len(rows), 40)
    with embedding_only(rows):
        assert torch.equal(made._embeddings_indices[: len(rows)], indices)
        made.add_lora_embedding(y, low[rows], layer.b[0])
    torch.testing.assert_close(y, whole[rows])
    again = torch.zeros(len(slots), 40)
    made.add_lora_embedding(again, low, layer.b[0])
    assert torch.equal(again, whole)


@pytest.mark.parametrize("slots", MIXES.values(), ids=MIXES)
def test_logits_use_the_mapping_of_sampled_rows(slots: list[int]) -> None:
    layer = Layer(6, (40,))
    x = torch.randn(len(slots), WIDTH, generator=torch.Generator().manual_seed(6))
    y = torch.zeros(len(slots), 40)
    wrapper(slots).add_lora_logits(y, x, layer.a[0], layer.b[0], 1.0)
    torch.testing.assert_close(y.double(), layer.delta(x, slots), atol=1e-4, rtol=1e-5)


def test_logits_of_a_whole_prompt_belong_to_its_one_request() -> None:
    layer = Layer(7, (40,))
    x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(7))
    y = torch.zeros(5, 40)
    wrapper([2]).add_lora_logits(y, x, layer.a[0], layer.b[0], 1.0)
    torch.testing.assert_close(y.double(), layer.delta(x, [2] * 5), atol=1e-4, rtol=1e-5)


def test_logits_whose_rows_cannot_be_told_apart_are_refused() -> None:
    layer = Layer(8, (40,))
    x = torch.zeros(5, WIDTH)
    with pytest.raises(RuntimeError, match="5 rows of logits, 2 in the mapping"):
        wrapper([2, BASE]).add_lora_logits(torch.zeros(5, 40), x, layer.a[0], layer.b[0], 1.0)


@pytest.mark.parametrize("packed", LAYOUTS.values(), ids=LAYOUTS)
def test_a_slot_that_gets_another_adapter_gets_its_rank(packed: bool) -> None:
    layer = Layer(9, packed=packed)
    made = wrapper([0, 0])
    x, y = inputs(2)
    made.add_lora_linear(y.clone(), x, layer.a, layer.b, 1.0, SLICES)
    # vLLM writes the next adapter into the same memory and tells the new layout.
    for a, b in zip(layer.a, layer.b, strict=True):
        a[0], b[0] = a[1].clone(), b[1].clone()
    tell(made, [0, 0], ids=[999, *IDS[1:]])
    expected = y.double() + layer.delta(x, [0, 0])
    made.add_lora_linear(y, x, layer.a, layer.b, 1.0, SLICES)
    torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-5)


def test_few_rows_pay_for_the_rank_of_their_adapter_not_of_the_slot() -> None:
    slots = [1, 0, 3]
    layer = Layer(14, packed=True)
    made = wrapper(slots)
    x, y = inputs(len(slots))
    expected = y.double() + layer.delta(x, slots)
    made.add_lora_linear(y.clone(), x, layer.a, layer.b, 1.0, SLICES)
    # Whoever read the padding now would answer NaN.
    for slot, rank in enumerate(RANKS):
        for a, b in zip(layer.a, layer.b, strict=True):
            a[slot, :, -(-rank // 4) * 4 :] = torch.nan
            b[slot, :, :, -(-rank // 4) * 4 :] = torch.nan
    made.add_lora_linear(y, x, layer.a, layer.b, 1.0, SLICES)
    torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("packed", LAYOUTS.values(), ids=LAYOUTS)
def test_a_module_without_lora_is_left_bit_for_bit(packed: bool) -> None:
    layer = Layer(10, packed=packed)
    for a in layer.a:
        a.zero_()
    x, y = inputs(3)
    before = y.clone()
    wrapper([0, 1, 2]).add_lora_linear(y, x, layer.a, layer.b, 1.0, SLICES)
    assert torch.equal(y, before)


def test_bfloat16_stays_near_float64() -> None:
    slots = MIXES["interleaved"]
    layer = Layer(11)
    x, y = (t.bfloat16() for t in inputs(len(slots)))
    layer.a = tuple(a.bfloat16() for a in layer.a)
    layer.b = tuple(b.bfloat16() for b in layer.b)
    expected = y.double() + layer.delta(x, slots)
    wrapper(slots).add_lora_linear(y, x, layer.a, layer.b, 1.0, SLICES)
    torch.testing.assert_close(y.double(), expected, atol=0.5, rtol=0.03)


def test_rows_are_grouped_by_slot_and_neighbours_become_a_slice() -> None:
    groups = find_rows(torch.tensor([BASE, 2, 2, BASE, 0, 2])).groups
    assert [group.slot for group in groups] == [0, 2]
    assert groups[0].rows == slice(4, 5)
    assert groups[1].rows.tolist() == [1, 2, 5]
    (whole,) = find_rows(torch.tensor([3, 3])).groups
    assert whole.rows is None


def test_adapters_with_few_rows_are_told_apart_from_those_with_many() -> None:
    rows = find_rows(torch.tensor([3, 1, BASE, 3] + [0] * (FEW_ROWS + 1)))
    assert [group.slot for group in rows.many] == [0]
    assert rows.few is not None
    assert rows.few.spans.tolist() == [[1, 0, 1], [3, 1, 3]]
    assert rows.few.order.tolist() == [1, 0, 3]
    assert find_rows(torch.tensor([0] * (FEW_ROWS + 1))).few is None
    assert find_rows(torch.tensor([BASE])).groups == []


def test_stretches_of_one_adapter_are_slices_and_its_other_rows_few() -> None:
    long = FEW_ROWS + 1
    rows = find_rows(torch.tensor([0] * long + [BASE] + [0] * long + [1, 0]))
    assert [group.rows for group in rows.many] == [slice(0, long), slice(long + 1, 2 * long + 1)]
    assert rows.few is not None
    assert rows.few.order.tolist() == [2 * long + 2, 2 * long + 1]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_kernel_for_few_rows_is_at_work_with_any_number_of_threads(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adapterhub_vllm.cpu_kernel import Kernel

    seen = []
    add = Kernel.add
    monkeypatch.setattr(Kernel, "add", lambda *given: (seen.append(1), add(*given))[1])
    slots = [1] * 9 + [BASE, 0, 2, 0]
    layer = Layer(12, packed=True)
    x, y = inputs(len(slots))
    expected = y.double() + layer.delta(x, slots)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        wrapper(slots).add_lora_linear(y, x, layer.a, layer.b, 1.0, SLICES)
    finally:
        torch.set_num_threads(before)
    assert seen
    torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-5)


def test_layers_with_rows_far_apart_in_memory_are_changed_in_place() -> None:
    """A view of a larger tensor: what lies between its rows is left alone."""
    slots = MIXES["interleaved"]
    layer = Layer(13, packed=True)
    x, _ = inputs(len(slots))
    wide = torch.full((len(slots), sum(SLICES) + 5), 3.0)
    y = wide[:, : sum(SLICES)]
    expected = y.double() + layer.delta(x, slots)
    wrapper(slots).add_lora_linear(y, x, layer.a, layer.b, 1.0, SLICES)
    torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-5)
    assert bool((wide[:, sum(SLICES) :] == 3.0).all())
