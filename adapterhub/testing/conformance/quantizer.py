"""What a user of a quantizer relies on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

from adapterhub import specs
from adapterhub.models import load_base
from adapterhub.testing.conformance import training
from adapterhub.testing.conformance.base import Conformance, check_refusal, check_success
from adapterhub.testing.fixtures import Adz


class QuantizerConformance(Conformance):
    """Of a quantizer: `name = "mine"`. method: what is trained over it, such as `lora`."""

    kind: ClassVar[type[specs.Component]] = specs.Quantizer
    section: ClassVar[str] = "quantizer"
    method: ClassVar[str] = "lora"
    agreement: ClassVar[float] = 0.9
    """The least cosine between the logits of the base and of the quantised base."""

    def prepared(self, record: Any) -> Any:
        """The tiny base as it is held in training."""
        return training.load_held(record, self.implementation(), self.made_options())

    def test_base_is_frozen(self, tiny_base: Any) -> None:
        """`prepare` leaves nothing trainable: that is the method's part."""
        model = self.prepared(tiny_base)
        assert model is not None, "prepare returns None, not the model"
        trainable = [name for name, p in model.named_parameters() if p.requires_grad]
        assert not trainable, f"trainable after prepare: {', '.join(trainable[:3])}"

    def test_base_is_quantised_and_still_itself(self, tiny_base: Any) -> None:
        """It answers nearly, and not exactly, as the base."""
        plain = training.logits(load_base(tiny_base))
        held = training.logits(self.prepared(tiny_base))
        assert torch.isfinite(held).all(), "NaN or infinity"
        assert not torch.equal(plain, held), "the base answers as before: nothing is quantised"
        near = torch.cosine_similarity(plain.flatten(), held.flatten(), dim=0).item()
        assert near >= self.agreement, f"the cosine to the base's logits is {near:.3f}"

    def test_it_is_deterministic(self, tiny_base: Any) -> None:
        """The same base is held in the same way each time: an adapter is loaded over it anew."""
        first, second = (training.logits(self.prepared(tiny_base)) for _ in range(2))
        assert torch.equal(first, second), "two loads of the same base answer differently"

    def test_adz_trains_over_it(self, adz: Adz, tiny_base: Any, tmp_path: Path) -> None:
        """Gradients pass through it; the version names it and the plugin's release."""
        from adapterhub.plugins import load_plugins

        data = training.write_rows(tmp_path)
        flags = ("--method", self.method, "--quantizer", self.name)
        options = training.option_flags("quantizer", self.options)
        version = training.train_a_little(adz, data, "trained", *flags, *options)
        assert version.manifest.quantizer == self.name
        wanted = load_plugins().versions_of(self.component)
        recorded = version.manifest.environment
        assert wanted.items() <= recorded.items(), f"{wanted} is not in {recorded}"

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
