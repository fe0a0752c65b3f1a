"""What a user of a method relies on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from adapterhub import specs
from adapterhub.errors import AdzError
from adapterhub.models import load_base, share_weights
from adapterhub.protocols import FoldingMethod, LowRankMethod
from adapterhub.testing.conformance import training
from adapterhub.testing.conformance.base import Conformance, check_refusal, check_success
from adapterhub.testing.fixtures import Adz

_FILES = ["adapter_config.json", "adapter_model.safetensors"]
_BASE_FILES = ["config.json", "generation_config.json", "model.safetensors"]


class MethodConformance(Conformance):
    """Of a method: `name = "mine"`.

    quantizer: what holds the base while it trains, for one that needs a base held quantised.
    takes_from_base: whether a part of the base's weights moves into the adapter when it is
    attached, and back when it is saved: what is loaded is then the same within `tolerance`.
    can_dry_run: whether it can be attached without the base's weights. One that computes with
    them refuses a dry run.
    tolerance: between logits before and after merging, relative to the largest.
    """

    kind: ClassVar[type[specs.Component]] = specs.Method
    section: ClassVar[str] = "method"
    quantizer: ClassVar[str | None] = None
    takes_from_base: ClassVar[bool] = False
    can_dry_run: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-3

    def flags(self) -> list[str]:
        """`--method NAME` and its options, and the quantizer."""
        held = ["--quantizer", self.quantizer] if self.quantizer else []
        options = training.option_flags("method", self.options)
        return ["--method", self.name, *options, *held]

    def load_held(self, record: Any) -> Any:
        """The tiny base, frozen, as it is held while the method trains."""
        from adapterhub.plugins import load_plugins

        if self.quantizer is None:
            return load_base(record).requires_grad_(False)
        plugins = load_plugins()
        component = plugins.get(specs.Quantizer, self.quantizer)
        options = plugins.load_options(component)
        quantizer = plugins.load_implementation(component)()
        return training.load_held(record, quantizer, options() if options else None)

    def attach(self, record: Any) -> Any:
        """The tiny base with a fresh adapter; its weights come from a fixed seed."""
        torch.manual_seed(0)
        base = self.load_held(record)
        base.name_or_path = record.name
        return self.attach_to(base)

    def attach_to(self, base: Any) -> Any:
        """The base with a fresh adapter."""
        return self.implementation().attach(
            base, self.made_options(), prepared=self.quantizer is not None
        )

    def train(self, record: Any, folder: Path) -> tuple[Any, Any]:
        """A trained model that was saved to `folder`, and the same loaded over a fresh base."""
        model = self.attach(record)
        training.take_steps(model)
        self.implementation().save(model, folder)
        return model, self.implementation().load(self.load_held(record), folder)

    def train_and_load(self, record: Any, folder: Path) -> tuple[Any, torch.Tensor]:
        """A trained adapter over the base in plain floats, and what it answers."""
        _, loaded = self.train(record, folder)
        if self.quantizer is not None:
            loaded = self.implementation().load(load_base(record), folder)
        return loaded, training.logits(loaded)

    def same(self, loaded: Any, model: Any) -> bool:
        """Whether both answer alike: bit for bit, where nothing moved through the base."""
        first, second = training.logits(loaded), training.logits(model)
        if self.takes_from_base:
            return training.difference(first, second) <= self.tolerance
        return torch.equal(first, second)

    def test_only_its_own_parameters_train(self, tiny_base: Any) -> None:
        """The base's own weights are neither trainable nor changed."""
        torch.manual_seed(0)
        base = self.load_held(tiny_base)
        owned = {id(p) for p in base.parameters()}
        before = _copies(base)
        model = self.attach_to(base)
        if self.takes_from_base:
            before = {name: (p, p.detach().clone()) for name, (p, _) in before.items()}
        trainable = [p for p in model.parameters() if p.requires_grad]
        assert trainable, "nothing is trainable"
        assert not [p for p in trainable if id(p) in owned], (
            "a weight of the base itself is trainable: train a new Parameter in its place"
        )
        training.take_steps(model)
        changed = [name for name, (p, kept) in before.items() if not torch.equal(p, kept)]
        assert not changed, f"training changed the base's own {', '.join(changed[:3])}"

    def test_it_learns(self, tiny_base: Any) -> None:
        """A few steps change what the model answers, and to numbers."""
        model = self.attach(tiny_base)
        before = training.logits(model)
        training.take_steps(model)
        after = training.logits(model)
        assert torch.isfinite(after).all(), "NaN or infinity"
        assert not torch.equal(before, after), "three steps change no answer"

    def test_it_saves_two_files_byte_for_byte(self, tiny_base: Any, tmp_path: Path) -> None:
        """Nothing else of an adapter is stored, and the digest of a version depends on it. Of a
        base: what `save_pretrained` writes."""
        files = _BASE_FILES if self.component.storage == "base" else _FILES
        model = self.attach(tiny_base)
        for folder in (tmp_path / "first", tmp_path / "second"):
            self.implementation().save(model, folder)
            found = sorted(path.name for path in folder.iterdir())
            assert found == files, f"it wrote {', '.join(found)}; stored are {', '.join(files)}"
        for name in files:
            first, second = ((tmp_path / f / name).read_bytes() for f in ("first", "second"))
            assert first == second, f"{name} differs between two saves of the same adapter"
            assert str(tmp_path).encode() not in first, f"{name} names a path of this machine"

    def test_loaded_it_is_the_same_bit_for_bit(self, tiny_base: Any, tmp_path: Path) -> None:
        """`load` over a fresh base answers exactly as what was saved."""
        model, loaded = self.train(tiny_base, tmp_path)
        assert self.same(loaded, model), (
            "what is loaded answers otherwise: not all that is trained is stored"
        )

    def test_many_share_one_base(self, tiny_base: Any, tmp_path: Path) -> None:
        """Loading over shared weights leaves the base and the other adapters as they were."""
        self.train(tiny_base, tmp_path)
        base = load_base(tiny_base)
        before = training.logits(base)
        first = self.implementation().load(share_weights(base), tmp_path)
        alone = training.logits(first)
        self.implementation().load(share_weights(base), tmp_path)
        assert torch.equal(training.logits(base), before), "loading changed the base itself"
        assert torch.equal(training.logits(first), alone), "loading changed another adapter"

    def test_peft_opens_what_it_stores(self, tiny_base: Any, tmp_path: Path) -> None:
        """Where the descriptor says `storage="peft"`."""
        if self.component.storage != "peft":
            return
        from peft import PeftModel

        model, _ = self.train(tiny_base, tmp_path)
        opened = PeftModel.from_pretrained(self.load_held(tiny_base), str(tmp_path))
        assert self.same(opened, model), "PEFT opens it as something else"

    def test_merged_it_answers_the_same(self, tiny_base: Any, tmp_path: Path) -> None:
        """Where it says `mergeable`: as a whole, and tensor by tensor where it can `fold`."""
        if not self.component.mergeable:
            return
        loaded, wanted = self.train_and_load(tiny_base, tmp_path)
        merged = training.difference(training.logits(loaded.merge_and_unload()), wanted)
        assert merged <= self.tolerance, f"merged it differs by {merged:.1e}"
        method = self.implementation()
        if isinstance(method, FoldingMethod):
            base = load_base(tiny_base)
            _fold_into(base, method, tmp_path)
            folded = training.difference(training.logits(base), wanted)
            assert folded <= self.tolerance, f"folded tensor by tensor it differs by {folded:.1e}"

    def test_its_updates_are_all_it_does(self, tiny_base: Any, tmp_path: Path) -> None:
        """Where it says `convertible`: the base and the updates answer as the adapter."""
        if not self.component.convertible:
            return
        loaded, wanted = self.train_and_load(tiny_base, tmp_path)
        base = load_base(tiny_base)
        _add_updates(base, self.implementation().updates(base, loaded))
        off = training.difference(training.logits(base), wanted)
        assert off <= self.tolerance, f"the base with the updates differs by {off:.1e}"

    def test_what_it_says_of_its_layers_is_so(self, tiny_base: Any) -> None:
        """Where it has `low_rank`: each layer that it names computes what it says."""
        method = self.implementation()
        if not isinstance(method, LowRankMethod):
            return
        model = self.attach(tiny_base)
        # What begins with a factor of zeros computes nothing yet.
        training.take_steps(model)
        for name, layer in model.eval().named_modules():
            parts = method.low_rank(layer)
            if parts is None:
                continue
            assert callable(parts.active), f"{name}: active is {parts.active!r}, not a function"
            given = torch.randn(3, parts.base.in_features, dtype=parts.down.weight.dtype)
            expected = parts.base(given)
            if parts.active():
                expected = expected + parts.scale * parts.up(parts.down(given))
            off = training.difference(layer(given), expected)
            assert off <= self.tolerance, f"{name} does not compute what low_rank says of it"

    def test_a_target_that_is_not_there_is_refused(self, tiny_base: Any) -> None:
        """Where it has an option `targets`."""
        from adapterhub.plugins import load_plugins

        model = load_plugins().load_options(self.component)
        if "targets" not in getattr(model, "model_fields", {}):
            return
        options = model.model_validate({**self.options, "targets": ["no_such_layer"]})
        with pytest.raises(AdzError, match="no_such_layer"):
            self.implementation().attach(load_base(tiny_base), options, prepared=False)

    def test_adz_trains_it(self, adz: Adz, tiny_base: Any, tmp_path: Path) -> None:
        """Past every gate, into a version or a base that says which release of the plugin made
        it."""
        from adapterhub.plugins import load_plugins

        data = training.write_rows(tmp_path)
        training.run_a_little(adz, data, "trained", *self.flags())
        recorded = _environment(self.component, "trained")
        wanted = load_plugins().versions_of(self.component)
        assert wanted.items() <= recorded.items(), f"{wanted} is not in {recorded}"

    def test_dry_run_commits_nothing(
        self, adz: Adz, registry: Any, tiny_base: Any, tmp_path: Path
    ) -> None:
        """`adz train --dry-run` checks all and stores nothing, or is refused in one line."""
        before = registry.revision()
        data = training.write_rows(tmp_path)
        done = adz("train", "--base", "tiny", "--data", data, *self.flags(), "--dry-run")
        if self.can_dry_run:
            check_success(done)
        else:
            line = check_refusal(done, code=2)
            assert "--dry-run" in line, f"it does not say to train without --dry-run: {line!r}"
        assert registry.revision() == before, "--dry-run changed the registry"

    def test_what_it_refuses_is_one_line(self, adz: Adz, tiny_base: Any, tmp_path: Path) -> None:
        """An unknown option, and each quantizer that it says it does not work with."""
        from adapterhub.plugins import load_plugins
        from adapterhub.train.pairs import is_strange

        command = ("train", "--base", "tiny", "--data", training.write_rows(tmp_path))
        check_refusal(adz(*command, *self.flags(), "-o", "method.no_such_option=1"), code=2)
        flags = ("--method", self.name, *training.option_flags("method", self.options))
        if self.component.needs_quantizer:
            check_refusal(adz(*command, *flags), code=2)
        works = self.component.quantizers
        if works is None:
            return
        reason = self.component.quantizer_reason
        assert reason, "quantizers are left out, and quantizer_reason does not say why"
        for name, quantizer in load_plugins().components(specs.Quantizer).items():
            if name not in works and self.name not in quantizer.methods:
                line = check_refusal(adz(*command, *flags, "--quantizer", name), code=2)
                strange = works and is_strange(self.component, quantizer)
                wanted = f"nobody has tried {self.name}" if strange else reason
                assert wanted in line, f"{wanted!r} is not in {line!r}"


def _copies(base: Any) -> dict[str, tuple[Any, torch.Tensor]]:
    return {name: (p, p.detach().clone()) for name, p in base.named_parameters()}


def _environment(component: Any, name: str) -> Mapping[str, str]:
    """What the result of a run was made with."""
    from adapterhub.plugins import open_registry

    if component.storage == "base":
        made: Mapping[str, Any] = open_registry().base(name).derivation or {}
        return dict(made["environment"])
    return open_registry().resolve(name).manifest.environment


@torch.no_grad()
def _fold_into(base: Any, method: FoldingMethod, folder: Path) -> None:
    tensors: Mapping[str, torch.Tensor] = dict(base.named_parameters())
    folds = method.fold(folder, {name: tuple(t.shape) for name, t in tensors.items()})
    assert folds is not None, "a mergeable method's own adapter cannot be folded"
    for name, fold in folds.items():
        tensors[name].copy_(fold(tensors[name].double()))


@torch.no_grad()
def _add_updates(base: Any, updates: Mapping[str, Any]) -> None:
    assert updates, "a trained adapter has no updates"
    for name, update in updates.items():
        weight = base.get_submodule(name).weight
        computed = update.compute()
        assert computed.dtype == torch.float64, f"{name}: {computed.dtype}, not float64"
        assert tuple(computed.shape) == tuple(update.shape), f"{name}: {tuple(computed.shape)}"
        added = computed.T if update.kind == "transposed" else computed
        weight.copy_((weight.double() + added).to(weight.dtype))
