"""Which differences between two bases refuse an adapter, and what the refusal says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from adapterhub.bases.identity import (
    PARTS,
    check_version,
    derivation_from,
    describe_difference,
    template_warning,
    why_not_same,
)
from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import BaseDigests, BaseLink, BaseRecord, Manifest, Version

DIGESTS = BaseDigests(**{part: f"sha256:{part[0] * 2}{'0' * 62}" for part in PARTS})
OTHER = "sha256:" + "f" * 64


def record(name: str = "tiny", **changes: Any) -> BaseRecord:
    return BaseRecord(
        name=name,
        source="test",
        path="/nowhere",
        digests=DIGESTS.model_copy(update=changes),
        architecture="LlamaForCausalLM",
        parameters=1,
        dtype="F32",
        created="",
    )


def version(link: BaseLink) -> Version:
    manifest = Manifest(name="sql", version=3, method="lora", made_by="train", base=link)
    return Version("sql", 3, "sha256:0", manifest)


RECORDED = BaseLink(status="recorded", name="tiny", digests=DIGESTS)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("weights", "the same architecture with other weights (weights ww0000000000 against fff"),
        ("arch", "it has other tensors or another configuration (arch aa0000000000 against fff"),
        ("tokenizer", "the same weights with another tokenizer (tokenizer tt0000000000 against"),
    ],
)
def test_a_base_that_differs_is_refused_with_both_digests(part: str, reason: str) -> None:
    other = record(**{part: OTHER})
    assert reason in (why_not_same(DIGESTS, other) or "")
    with pytest.raises(AdzError) as error:
        check_version(version(RECORDED), other.model_copy(update={"name": "two"}))
    assert str(error.value).startswith(f"sql@3 was made for tiny, not for two: {reason}")
    assert error.value.hint == "use the base that it was made for"
    assert error.value.exit_code == EXIT_VERIFICATION
    asserted = RECORDED.model_copy(update={"status": "asserted"})
    with pytest.raises(AdzError) as error:
        check_version(version(asserted), other.model_copy(update={"name": "two"}))
    assert "adz import sql@3 --base two" in error.value.hint


def test_every_part_that_differs_is_named() -> None:
    text = describe_difference(DIGESTS, record(weights=OTHER, chat_template=None).digests)
    assert text == (
        "weights ww0000000000 against ffffffffffff, chat template cc0000000000 against none"
    )


def test_another_template_is_a_warning_only() -> None:
    other = record(chat_template=None)
    check_version(version(RECORDED), other)
    assert "another chat template than tiny has" in (
        template_warning(version(RECORDED), other) or ""
    )
    assert template_warning(version(RECORDED), record()) is None


def test_the_name_of_a_base_says_nothing() -> None:
    check_version(version(RECORDED), record("another"))


def test_what_does_not_know_its_base_is_refused() -> None:
    with pytest.raises(AdzError, match="the base of sql@3 is not known"):
        check_version(version(BaseLink(status="unknown")), record())


@pytest.mark.parametrize(
    ("made", "passes"),
    [
        (derivation_from(record(), "quantised"), True),
        (derivation_from(record(), "distilled"), False),
        (derivation_from(record(weights=OTHER), "quantised"), False),
        ({"kind": "quantised", "digests": "x"}, False),
        ({"kind": "quantised"}, False),
        (None, False),
    ],
)
def test_a_recorded_derivation_is_allowed(made: Any, passes: bool) -> None:
    packed = record("packed", weights=OTHER, arch=OTHER).model_copy(update={"derivation": made})
    assert (why_not_same(DIGESTS, packed) is None) == passes
    # A derivation says nothing about the tokenizer.
    digests = packed.digests.model_copy(update={"tokenizer": OTHER})
    assert why_not_same(DIGESTS, packed.model_copy(update={"digests": digests})) is not None


def test_a_quantised_base_is_recorded(make_base: Callable[..., Any], registry: Any) -> None:
    from adapterhub.bases.add import add_base
    from adapterhub.merge.silent import Silent

    add_base(registry, "plain", str(make_base("one")), copy=False, progress=Silent())
    made = add_base(
        registry,
        "packed",
        str(make_base("two", seed=1, quantization_config={"bits": 4})),
        copy=False,
        progress=Silent(),
        quantised_from="plain",
    )
    assert made.derivation is not None
    assert made.derivation["from"] == "plain"
    assert why_not_same(registry.base("plain").digests, registry.base("packed")) is None
    assert why_not_same(made.digests, registry.base("plain")) is not None


def test_another_model_is_no_quantised_form(make_base: Callable[..., Any], registry: Any) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    from adapterhub.bases.add import add_base
    from adapterhub.merge.silent import Silent

    add_base(registry, "plain", str(make_base("one")), copy=False, progress=Silent())
    for folder, tensors, message in (
        ("two", {"model.layers.0.k_proj.weight": (8, 4)}, "layers.0.q_proj is missing"),
        ("three", {"model.layers.0.q_proj.weight": (4, 4)}, r"q_proj is \(4, 4\)"),
    ):
        directory = make_base(folder)
        arrays = {name: np.ones(shape, np.float32) for name, shape in tensors.items()}
        save_file(arrays, directory / "model.safetensors")
        with pytest.raises(AdzError, match=message):
            add_base(
                registry, "packed", str(directory), copy=False, progress=Silent(),
                quantised_from="plain",
            )  # fmt: skip
    assert [base.name for base in registry.bases()] == ["plain"]
