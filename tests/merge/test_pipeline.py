"""The whole merge: registry in and out, lineage, the same bytes each time, nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapterhub.errors import EXIT_USAGE, AdzError
from adapterhub.manifest import BaseLink
from adapterhub.merge import pipeline
from adapterhub.merge.pipeline import merge
from adapterhub.merge.prepare import default_name
from adapterhub.merge.recipe import MergeRecipe
from adapterhub.plugins import open_registry

from .conftest import SHAPES, UP, K, Q, SilentProgress, read_deltas


def recipe(*adapters: str | Path, **options: Any) -> MergeRecipe:
    return MergeRecipe.model_validate({"adapters": [str(a) for a in adapters], **options})


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_different_adapters_sum_exactly(make_lora: Any, run_merge: Callable[..., Any]) -> None:
    import torch

    loras = [
        make_lora("a", rank=4, scale=2.0, seed=1),
        make_lora("b", rank=9, scale=0.5, seed=2, use_rslora=True, lora_alpha=1.5),
        make_lora("c", seed=3, scale=2.0, shapes={Q: SHAPES[Q]}, dtype=torch.bfloat16),
        make_lora("d", seed=4, rank=3, ranks={K: 2}, scales={UP: 5.0},
                  rank_pattern={"k_proj": 2}, alpha_pattern={"up_proj": 15, "k_proj": 4}),
    ]  # fmt: skip
    weights = [0.7, -0.3, 1.5, 0.2]
    result = run_merge(*loras, weights=weights)
    assert result.rank == 4 + 9 + 4 + 3
    merged = read_deltas(result.directory)
    assert merged.keys() == SHAPES.keys()
    for module in SHAPES:
        expected = sum(w * x.deltas.get(module, 0) for w, x in zip(weights, loras, strict=True))
        assert relative(merged[module], expected) < 1e-6


def test_default_weights_are_one_over_n(make_lora: Any, run_merge: Callable[..., Any]) -> None:
    loras = [make_lora("a", seed=1), make_lora("b", seed=2)]
    result = run_merge(*loras)
    assert result.weights == (0.5, 0.5)
    expected = 0.5 * loras[0].deltas[Q] + 0.5 * loras[1].deltas[Q]
    assert relative(read_deltas(result.directory)[Q], expected) < 1e-6


@pytest.mark.parametrize("rank", ["max", 5])
def test_compression_reports_its_true_error(
    rank: int | str, make_lora: Any, run_merge: Callable[..., Any]
) -> None:
    loras = [make_lora("a", rank=6, seed=1), make_lora("b", rank=8, seed=2)]
    result = run_merge(*loras, rank=rank)
    assert result.rank == (8 if rank == "max" else 5)
    merged = read_deltas(result.directory)
    exact = {m: 0.5 * loras[0].deltas[m] + 0.5 * loras[1].deltas[m] for m in SHAPES}
    best = sum((np.linalg.svd(d)[1][result.rank :] ** 2).sum() for d in exact.values())
    lost = sum(((merged[m] - exact[m]) ** 2).sum() for m in SHAPES)
    norm = sum((d**2).sum() for d in exact.values())
    assert result.relative_error == pytest.approx((lost / norm) ** 0.5, rel=1e-5)
    assert lost == pytest.approx(best, rel=1e-5)
    largest = {m: relative(merged[m], exact[m]) for m in SHAPES}
    assert dict(result.largest) == pytest.approx(largest, rel=1e-5)
    errors = [error for _, error in result.largest]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("rule", ["linear", "cat", "ties", "dare"])
def test_same_bytes_whatever_the_workers(
    rule: str, make_lora: Any, run_merge: Callable[..., Any]
) -> None:
    shapes = {f"layers.{i}.q_proj": (60 + i, 50) for i in range(12)}
    loras = [make_lora(name, seed=i, shapes=shapes) for i, name in enumerate("ab")]
    first, *others = [
        files(run_merge(*loras, rule=rule, workers=w).directory) for w in (1, 1, 2, 5)
    ]
    assert all(other == first for other in others)
    if rule == "dare":
        assert files(run_merge(*loras, rule=rule, seed=1).directory) != first


def test_the_configuration_is_canonical(make_lora: Any, run_merge: Callable[..., Any]) -> None:
    loras = [
        make_lora("a", target_modules=["up_proj", "q_proj"], base_model_name_or_path="/home/me/x",
                  shapes={Q: SHAPES[Q], UP: SHAPES[UP]}),
        make_lora("b", target_modules=["k_proj", "q_proj"], base_model_name_or_path="/home/me/x",
                  shapes={Q: SHAPES[Q], K: SHAPES[K]}),
    ]  # fmt: skip
    text = (run_merge(*loras).directory / "adapter_config.json").read_text()
    config = json.loads(text)
    assert list(config) == sorted(config)
    assert config["target_modules"] == ["k_proj", "q_proj", "up_proj"]
    assert config["lora_alpha"] == config["r"] == 8
    assert config["task_type"] == "CAUSAL_LM"
    assert "/home" not in text


def test_the_writer_makes_what_safetensors_makes(
    make_lora: Any, run_merge: Callable[..., Any], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    from adapterhub.bases.headers import read_header

    result = run_merge(make_lora("a", seed=1), make_lora("b", seed=2))
    file = result.directory / "adapter_model.safetensors"
    again = tmp_path / "again.safetensors"
    save_file(load_file(file), again, metadata={"format": "pt"})
    assert read_header(file) == read_header(again)
    assert file.read_bytes() == again.read_bytes()


def test_a_version_with_its_lineage(commit_adapter: Any) -> None:
    sql, french = commit_adapter("sql", seed=1), commit_adapter("french", seed=2)
    registry = open_registry()
    asked = recipe("sql", "french@1", rule="ties", weights=[0.7, 0.3], density=0.4, rank=6)
    result = merge(asked, registry, SilentProgress())
    version = registry.resolve("sql-french-1-ties")
    assert result.version == version
    manifest = version.manifest
    assert manifest.made_by == "merge"
    assert manifest.method == "lora"
    assert manifest.base == sql.manifest.base
    assert manifest.prompt_format == "plain"
    assert [(p.name, p.version, p.digest, p.weight) for p in manifest.parents] == [
        ("sql", 1, sql.digest, 0.7),
        ("french", 1, french.digest, 0.3),
    ]
    assert manifest.recipe["rule"] == "ties"
    assert manifest.recipe["density"] == 0.4
    assert manifest.metrics["relative_error"] == result.relative_error
    assert len(manifest.metrics["largest"]) == 5
    assert manifest.adapter["rank"] == 6
    assert str(Path.home()) not in manifest.model_dump_json()
    again = merge(asked, registry, SilentProgress())
    assert again.version.number == 2
    assert again.version.manifest.payload == manifest.payload


def test_the_recorded_recipe_repeats_the_merge(commit_adapter: Any) -> None:
    commit_adapter("sql", seed=1)
    commit_adapter("french", seed=2)
    registry = open_registry()
    first = merge(recipe("sql", "french", rule="dare", seed=3), registry, SilentProgress())
    repeated = MergeRecipe.model_validate({**first.version.manifest.recipe, "name": "again"})
    second = merge(repeated, registry, SilentProgress())
    assert second.version.manifest.payload == first.version.manifest.payload


def test_a_merge_of_a_merge(commit_adapter: Any) -> None:
    for seed, name in enumerate(("a", "b", "c")):
        commit_adapter(name, seed=seed)
    registry, progress = open_registry(), SilentProgress()
    merge(recipe("a", "b", weights=[1, 1], name="ab"), registry, progress)
    nested = merge(recipe("ab", "c", weights=[1, 1]), registry, progress)
    direct = merge(recipe("a", "b", "c", weights=[1, 1, 1]), registry, progress)
    one, other = (read_deltas(registry.path(r.version)) for r in (nested, direct))
    assert all(relative(one[m], other[m]) < 1e-5 for m in other)


def test_directories_need_a_base_or_out(
    commit_adapter: Any, tiny_base: Any, tmp_path: Path
) -> None:
    registry, progress = open_registry(), SilentProgress()
    paths = [registry.path(commit_adapter(name, seed=i)) for i, name in enumerate("ab")]
    with pytest.raises(AdzError, match=r"base of .* is not known .*--base NAME") as caught:
        merge(recipe(*paths, name="both"), registry, progress)
    assert caught.value.exit_code == EXIT_USAGE
    result = merge(recipe(*paths, out=tmp_path / "out"), registry, progress)
    assert not result.base_checked
    assert any("base not checked" in note for note in progress.notes)
    result = merge(recipe(*paths, name="both", base="tiny"), registry, progress)
    assert result.version.manifest.base == BaseLink(
        status="asserted", name="tiny", digests=tiny_base.digests
    )
    assert registry.names() == ["a", "b", "both"]


def test_an_asserted_base_is_compared(commit_adapter: Any, make_lora: Any, tmp_path: Path) -> None:
    version = commit_adapter("a")
    module = "model.layers.0.self_attn.q_proj"
    strange = make_lora("strange", shapes={module: (64, 60)})
    with pytest.raises(
        AdzError, match=rf"strange: {module} is 64 x 60, in the base tiny .*64 x 64"
    ):
        merge(
            recipe(version.reference, strange.path, base="tiny", out=tmp_path / "x"),
            open_registry(),
            SilentProgress(),
        )
    missing = make_lora("missing", shapes={"model.layers.7.self_attn.q_proj": (64, 64)})
    with pytest.raises(AdzError, match=r"layers\.7.*in the base tiny it is not there"):
        merge(
            recipe(version.reference, missing.path, base="tiny", out=tmp_path / "x"),
            open_registry(),
            SilentProgress(),
        )


def test_versions_of_different_bases_are_refused(
    commit_adapter: Any, tiny_base_dir: Path, tmp_path: Path, adz: Any
) -> None:
    import shutil

    one = commit_adapter("one")
    other_dir = shutil.copytree(tiny_base_dir, tmp_path / "other")
    template = other_dir / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert adz("base", "add", "other", other_dir).code == 0
    registry = open_registry()
    other = registry.base("other")
    link = BaseLink(status="recorded", name="other", digests=other.digests)
    registry.commit(
        one.manifest.model_copy(update={"name": "two", "base": link, "files": {}}),
        registry.path(one),
    )
    with pytest.raises(
        AdzError,
        match=r"one@1 and two@1 have different bases: tiny and other differ in chat template",
    ):
        merge(recipe("one", "two"), registry, SilentProgress())
    assert registry.names() == ["one", "two"]


def test_a_version_of_unknown_base_is_not_merged(commit_adapter: Any, tmp_path: Path) -> None:
    one = commit_adapter("one")
    registry = open_registry()
    unknown = one.manifest.model_copy(
        update={"name": "two", "base": BaseLink(status="unknown"), "files": {}}
    )
    registry.commit(unknown, registry.path(one))
    with pytest.raises(AdzError, match=r"the base of two@1 is not known"):
        merge(recipe("one", "two", out=tmp_path / "out"), registry, SilentProgress())


def test_dry_run_writes_nothing(commit_adapter: Any, home: Path) -> None:
    versions = [commit_adapter("a"), commit_adapter("b", seed=1)]
    registry = open_registry()
    for version in versions:
        # A view is made on demand, whoever asks for it.
        registry.path(version)
    before = sorted(home.rglob("*"))
    planned = merge(recipe("a", "b"), registry, SilentProgress(), dry_run=True)
    assert planned.version is None
    assert planned.relative_error is None
    assert sorted(home.rglob("*")) == before
    done = merge(recipe("a", "b"), registry, SilentProgress())
    assert (planned.rank, planned.modules, planned.parameters) == (
        done.rank, done.modules, done.parameters,
    )  # fmt: skip
    assert done.parameters == done.version.manifest.adapter["parameters"]


def test_a_failure_leaves_nothing(
    make_lora: Any, run_merge: Callable[..., Any], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    a, b = make_lora("a"), make_lora("b")
    file = b.path / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors[f"base_model.model.{UP}.lora_A.weight"][0, 0] = float("nan")
    save_file(tensors, file)
    open_registry()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(AdzError, match="up_proj holds NaN"):
        run_merge(a, b)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_interrupt_leaves_nothing(
    make_lora: Any, run_merge: Callable[..., Any], tmp_path: Path, monkeypatch: Any
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "write_config", interrupted)
    loras = [make_lora("a"), make_lora("b")]
    open_registry()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        run_merge(*loras)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_there_is_not_overwritten(
    make_lora: Any, run_merge: Callable[..., Any], tmp_path: Path
) -> None:
    loras = [make_lora("a"), make_lora("b")]
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("x")
    with pytest.raises(AdzError, match=r"taken exists already"):
        run_merge(*loras, out=tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("adapters", "rule", "name"),
    [
        (("sql", "french"), "ties", "sql-french-ties"),
        (("team/sql@3", "french@prod"), "linear", "sql-3-french-prod-linear"),
        (("./My Adapter/", "/tmp/b_2"), "cat", "my-adapter-b_2-cat"),
        (("sql@sha256:0123456789ab", "b"), "dare", "sql-sha256-0123456789ab-b-dare"),
    ],
)
def test_default_name(adapters: tuple[str, ...], rule: str, name: str) -> None:
    from adapterhub.reference import check_name

    assert check_name(default_name(adapters, rule)) == name
    assert check_name(default_name(["x" * 60, "y" * 60], "ties"))
