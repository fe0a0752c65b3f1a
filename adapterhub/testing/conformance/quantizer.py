"""What a user of a quantizer relies on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch

from adapterhub import specs
from adapterhub.models import load_base
from adapterhub.testing.conformance import training
from adapterhub.testing.conformance.base import Conformance, check_refusal, check_success
from adapterhub.testing.fixtures import Adz


class QuantizerConformance(Conformance):
    """Of a quantizer: `name = "mine"`. method (`"lora"`): what is trained over it. agreement
    (`0.9`): the least cosine between the logits of the base and of the quantised base. options
    (`{}`): its options, where not all have a default. other_options (`()`): more such mappings,
    such as `({"bits": 3}, {"bits": 8})`; with each the base is held and trained over too."""

    kind: ClassVar[type[specs.Component]] = specs.Quantizer
    section: ClassVar[str] = "quantizer"
    method: ClassVar[str] = "lora"
    agreement: ClassVar[float] = 0.9
    other_options: ClassVar[Sequence[Mapping[str, Any]]] = ()

    @property
    def all_options(self) -> list[Mapping[str, Any]]:
        """Each set of options that it is tried with."""
        return [self.options, *self.other_options]

    def prepared(self, record: Any, options: Mapping[str, Any] | None = None) -> Any:
        """The tiny base as it is held in training."""
        return training.load_held(record, self.implementation(), self.made_options(options))

    def test_base_is_frozen(self, tiny_base: Any) -> None:
        """`prepare` leaves nothing trainable: that is the method's part."""
        model = self.prepared(tiny_base)
        assert model is not None, "prepare returns None, not the model"
        trainable = [name for name, p in model.named_parameters() if p.requires_grad]
        assert not trainable, f"trainable after prepare: {', '.join(trainable[:3])}"

    def test_base_is_quantised_and_still_itself(self, tiny_base: Any) -> None:
        """It answers nearly, and not exactly, as the base."""
        plain = training.logits(load_base(tiny_base))
        for options in self.all_options:
            held = training.logits(self.prepared(tiny_base, options))
            given = f"with {dict(options)} " if options else ""
            assert torch.isfinite(held).all(), f"{given}NaN or infinity"
            assert not torch.equal(plain, held), f"{given}nothing is quantised: the same answer"
            near = torch.cosine_similarity(plain.flatten(), held.flatten(), dim=0).item()
            assert near >= self.agreement, f"{given}the cosine to the base's logits is {near:.3f}"

    def test_it_is_deterministic(self, tiny_base: Any) -> None:
        """The same base is held in the same way each time: an adapter is loaded over it anew."""
        first, second = (training.logits(self.prepared(tiny_base)) for _ in range(2))
        assert torch.equal(first, second), "two loads of the same base answer differently"

    def test_adz_trains_over_it(self, adz: Adz, tiny_base: Any, tmp_path: Path) -> None:
        """Gradients pass through it; the version names it and the plugin's release, and as many
        adapted layers and input moments as over the base in plain floats."""
        from adapterhub.plugins import load_plugins

        data = training.write_rows(tmp_path)
        method = ("--method", self.method)
        plain = _counts(training.train_a_little(adz, data, "plain", *method))
        wanted = load_plugins().versions_of(self.component)
        for options in self.all_options:
            flags = ("--quantizer", self.name, *training.option_flags("quantizer", options))
            version = training.train_a_little(adz, data, "trained", *method, *flags)
            assert version.manifest.quantizer == self.name
            recorded = version.manifest.environment
            assert wanted.items() <= recorded.items(), f"{wanted} is not in {recorded}"
            held = _counts(version)
            assert held == plain, f"over it {held}, over plain floats {plain}: is each a Linear?"

    def test_it_stores_a_base_or_refuses(self, adz: Adz, registry: Any, tiny_base: Any) -> None:
        """`adz base quantize` by one that works in `prepare` is refused in one line."""
        arguments = self.implementation().load_arguments(self.made_options())
        if "quantization_config" in arguments:
            return
        before = registry.revision()
        line = check_refusal(adz("base", "quantize", "tiny", "--with", self.name))
        assert "cannot store a base" in line, line
        assert registry.revision() == before, "a base was stored"

    def test_dry_run_commits_nothing(
        self, adz: Adz, registry: Any, tiny_base: Any, tmp_path: Path
    ) -> None:
        """`adz train --dry-run` checks all and stores nothing; wrong options are one line."""
        before = registry.revision()
        command = ("train", "--base", "tiny", "--data", training.write_rows(tmp_path))
        flags = ("--method", self.method, "--quantizer", self.name)
        options = training.option_flags("quantizer", self.options)
        check_success(adz(*command, *flags, *options, "--dry-run"))
        check_refusal(adz(*command, *flags, "-o", "quantizer.no_such_option=1"), code=2)
        assert registry.revision() == before, "--dry-run changed the registry"


def _counts(version: Any) -> dict[str, int | None]:
    """How many modules are adapted, and how many of them have input moments."""
    moments = version.manifest.metrics.get("input_moments") or {}
    return {
        "modules": version.manifest.adapter["modules"],
        "input_moments.modules": moments.get("modules"),
    }
