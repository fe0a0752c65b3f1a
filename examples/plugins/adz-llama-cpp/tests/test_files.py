"""GGUF files: what is in them, and that each is written once."""

from __future__ import annotations

import json

import numpy as np
import pytest
from adz_llama_cpp.files import GgufFiles
from gguf import GGUFReader
from safetensors.numpy import load_file

from adapterhub import AdzError
from adapterhub.hub.home import Quiet


@pytest.fixture
def files(tiny_base):
    return GgufFiles("f32")


def test_adapter_is_its_factors_under_llama_cpps_names(files, tiny_adapters, registry):
    version = tiny_adapters[2]
    reader = GGUFReader(files.adapter(version))
    stored = load_file(registry.path(version) / "adapter_model.safetensors")
    written = {tensor.name: tensor.data for tensor in reader.tensors}
    assert sorted(written) == [
        "blk.0.attn_q.weight.lora_a",
        "blk.0.attn_q.weight.lora_b",
        "blk.0.ffn_up.weight.lora_a",
        "blk.0.ffn_up.weight.lora_b",
    ]
    prefix = "base_model.model.model.layers.0"
    for side in "ab":
        name = f"{prefix}.mlp.up_proj.lora_{side.upper()}.weight"
        assert np.array_equal(written[f"blk.0.ffn_up.weight.lora_{side}"], stored[name])
    # llama.cpp rotates neighbours, transformers the two halves of a head: 4 heads of 16 rows.
    rows = [head * 16 + half * 8 + i for head in range(4) for i in range(8) for half in range(2)]
    q = stored[f"{prefix}.self_attn.q_proj.lora_B.weight"]
    assert np.array_equal(written["blk.0.attn_q.weight.lora_b"], q[rows])
    assert reader.fields["adapter.lora.alpha"].contents() == 4.0


def test_base_and_adapters_are_written_once(files, tiny_base, tiny_adapters):
    for write in (lambda: files.base(tiny_base, Quiet()), lambda: files.adapter(tiny_adapters[0])):
        first = write()
        before = first.stat().st_mtime_ns
        assert write() == first
        assert first.stat().st_mtime_ns == before
    assert files.adapter(tiny_adapters[0]) != files.adapter(tiny_adapters[1])
    assert GGUFReader(files.base(tiny_base, Quiet())).fields["llama.block_count"].contents() == 2


def test_kinds_of_a_base_lie_beside_each_other(files, tiny_base):
    other = GgufFiles("q8_0")
    assert other.base(tiny_base, Quiet()) != files.base(tiny_base, Quiet())
    assert (
        other.base(tiny_base, Quiet()).stat().st_size
        < files.base(tiny_base, Quiet()).stat().st_size
    )


def test_what_was_removed_is_swept(files, tiny_adapters, registry, adz):
    kept, gone = (files.adapter(version) for version in tiny_adapters[:2])
    assert adz("rm", tiny_adapters[1].name, "--yes").code == 0
    files.sweep(registry)
    assert (kept.is_file(), gone.exists()) == (True, False)


def test_what_llama_cpp_has_not_is_refused_and_leaves_nothing(files, tiny_base, registry, tmp_path):
    from adapterhub.testing.adapters import commit_tiny_lora

    version = commit_tiny_lora(tiny_base, tmp_path / "a", "dora", 2)
    folder = tmp_path / "a"
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "use_rslora": True}))
    manifest = version.manifest.model_copy(update={"files": {}, "version": 0, "payload": ""})
    assert files.adapter(registry.commit(manifest, folder)).is_file()
    (folder / "adapter_config.json").write_text(
        json.dumps({**config, "layer_replication": [[0, 2]]})
    )
    before = sorted(files.adapter(version).parent.iterdir())
    with pytest.raises(AdzError, match="layer_replication"):
        files.adapter(registry.commit(manifest, folder))
    assert sorted(files.adapter(version).parent.iterdir()) == before
