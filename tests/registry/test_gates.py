"""One malicious or broken example for each gate, and the harmless neighbour that passes."""

from __future__ import annotations

import json
import os
import re
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapterhub.errors import EXIT_VERIFICATION, AdzError
from adapterhub.manifest import BaseRecord, Manifest
from adapterhub_registry import gates
from adapterhub_registry.gates import check_payload
from adapterhub_registry.gates_patterns import check_patterns, uncovered
from adapterhub_registry.store import LocalRegistry

Q = "base_model.model.model.layers.0.self_attn.q_proj"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

MakePayload = Callable[..., Path]
MakeManifest = Callable[..., Manifest]


@pytest.fixture
def payload(make_payload: MakePayload) -> Path:
    return make_payload()


@pytest.fixture
def base(make_base: Callable[..., BaseRecord]) -> BaseRecord:
    return make_base()


@pytest.fixture
def check(payload: Path, make_manifest: MakeManifest, base: BaseRecord) -> Callable[..., None]:
    """Run the gates on the payload, with its base unless told otherwise."""

    def run(*, known: bool = True, **changes: Any) -> None:
        check_payload(payload, make_manifest(**changes), base if known else None)

    return run


@pytest.fixture
def refused(check: Callable[..., None]) -> Callable[..., None]:
    """Assert that the gates refuse the payload with a message that holds this text."""

    def run(message: str, **options: Any) -> None:
        with pytest.raises(AdzError, match=re.escape(message)) as error:
            check(**options)
        assert error.value.exit_code == EXIT_VERIFICATION

    return run


def edit_config(payload: Path, **changes: Any) -> None:
    path = payload / CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(payload: Path, changes: dict[str, np.ndarray | None]) -> None:
    """Replace, add, or with None remove tensors."""
    tensors = {**load_file(payload / WEIGHTS), **changes}
    save_file({n: t for n, t in tensors.items() if t is not None}, payload / WEIGHTS)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("made_by", ["train", "merge", "import"])
def test_a_sound_payload_passes(check: Callable[..., None], known: bool, made_by: str) -> None:
    check(known=known, made_by=made_by)


def test_a_refused_payload_is_not_stored(
    registry: LocalRegistry, payload: Path, make_manifest: MakeManifest
) -> None:
    (payload / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(AdzError, match="a pickle can run code"):
        registry.commit(make_manifest(), payload)
    assert registry.names() == []


# Files


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adapter_model.bin", "adapter_model.bin: a pickle can run code when it is loaded"),
        ("training_args.bin", "training_args.bin: a pickle can run code"),
        ("optimizer.pt", "optimizer.pt: a pickle can run code"),
        ("last.ckpt", "last.ckpt: a pickle can run code"),
        ("adapter.zip", "adapter.zip: archives are not unpacked"),
        ("modeling_evil.py", "modeling_evil.py: no file that an adapter consists of"),
        ("..safetensors", "..safetensors: no file that"),
        (".hidden", ".hidden: no file that"),
    ],
)
def test_only_an_adapters_files_are_stored(
    payload: Path, refused: Callable[..., None], name: str, message: str
) -> None:
    (payload / name).write_bytes(b"\x80\x04")
    refused(message)


def test_a_symbolic_link_is_refused(
    payload: Path, refused: Callable[..., None], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    (payload / "README.md").symlink_to(tmp_path / "secret")
    refused("README.md is a symbolic link")


def test_only_plain_files_are_stored(payload: Path, refused: Callable[..., None]) -> None:
    os.mkfifo(payload / "README.md")
    refused("README.md is not a plain file")
    (payload / "README.md").unlink()
    (payload / "README.md").mkdir()
    refused("README.md is not a plain file")


def test_files_are_bounded(
    payload: Path,
    check: Callable[..., None],
    refused: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (payload / "README.md").write_bytes(b" " * gates.MAX_README)
    check()
    (payload / "README.md").write_bytes(b" " * (gates.MAX_README + 1))
    refused("README.md has 1048577 bytes, at most 1048576 are stored")
    (payload / "README.md").write_bytes(b" " * 5000)
    monkeypatch.setattr(gates, "MAX_BYTES", 5000)
    refused(" bytes, at most 5000 are stored")
    for number in range(gates.MAX_FILES):
        (payload / f"x{number}").touch()
    refused("67 files, at most 64 are stored")


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_both_files_are_needed(payload: Path, refused: Callable[..., None], name: str) -> None:
    (payload / name).unlink()
    refused(f"there is no {name}")


# Configuration


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "it is not JSON at line 1"),
        ("[]", "it is not a JSON object"),
        ('{"r": 2, "r": 4}', "the key 'r' is there twice"),
        ('{"a": {"r": 2, "r": 4}}', "the key 'r' is there twice"),
        ('{"lora_alpha": NaN}', "NaN is not JSON"),
        ('{"lora_alpha": -Infinity}', "-Infinity is not JSON"),
        ("[" * 100_000, "it is nested too deeply"),
        (" " * (2**20 + 1), "it has 1048577 bytes, at most 1048576 are read"),
    ],
)
def test_the_configuration_is_strict_json(
    payload: Path, refused: Callable[..., None], text: str, message: str
) -> None:
    (payload / CONFIG).write_text(text)
    refused(f"adapter_config.json is refused: {message}")


EVIL = "evil_module"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_mapping", {"base_model_class": "X", "parent_library": EVIL}),
        ("auto_mapping", {"base_model_class": "X", "parent_library": "transformers.models.x"}),
        ("auto_mapping", {"base_model_class": "X.y", "parent_library": "transformers"}),
        ("auto_mapping", {"base_model_class": "X", "parent_library": "transformers", "z": 1}),
        ("auto_mapping", EVIL),
        ("megatron_config", {"a": 1}),
        ("megatron_core", EVIL),
        ("tokenizer_kwargs", {"trust_remote_code": True}),
        ("trust_remote_code", True),
        ("trust_remote_code", "yes"),
        ("trust_remote_code", 0),
        ("prompt_tuning_init_state_dict_path", "/tmp/x.bin"),
    ],
)
def test_keys_that_load_code_are_refused(
    payload: Path, refused: Callable[..., None], key: str, value: Any
) -> None:
    edit_config(payload, **{key: value})
    refused(f"{key} may not be ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_mapping", None),
        ("auto_mapping", {
            "base_model_class": "Qwen2ForCausalLM",
            "parent_library": "transformers.models.qwen2.modeling_qwen2",
        }),
        ("megatron_config", None),
        ("megatron_core", "megatron.core"),
        ("tokenizer_kwargs", None),
        ("trust_remote_code", False),
        ("a_key_of_a_newer_peft", {"x": 1}),
        ("base_model_name_or_path", "/home/someone/../model"),
        ("r", 2),
        ("rank_pattern", {"^model.layers.0.self_attn.q_proj": 2}),
        ("alpha_pattern", {"q_proj": 0.5}),
    ],
)  # fmt: skip
def test_what_peft_writes_itself_passes(
    payload: Path, check: Callable[..., None], key: str, value: Any
) -> None:
    edit_config(payload, **{key: value})
    check()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": None}, "peft_type is 'None', not the name of a PEFT method"),
        ({"peft_type": "../LORA"}, "peft_type is '../LORA'"),
        ({"r": 0}, "r is '0', not a rank from 1 to 512"),
        ({"r": 513}, "r is '513', not a rank from 1 to 512"),
        ({"r": True}, "r is 'True', not a finite number"),
        ({"r": "2"}, "r is '2', not a finite number"),
        ({"r": 2.0}, "r is '2.0', not a rank"),
        ({"rank_pattern": {"q_proj": 4096}}, "rank_pattern.q_proj is '4096', not a rank"),
        ({"rank_pattern": [2]}, "rank_pattern is '[2]', not a rank"),
        ({"lora_alpha": "16"}, "lora_alpha is '16', not a finite number"),
        ({"lora_alpha": 10**400}, "not a finite number"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern.q_proj is 'x', not a finite"),
    ],
)
def test_numbers_are_checked(
    payload: Path, refused: Callable[..., None], changes: dict[str, Any], message: str
) -> None:
    edit_config(payload, **changes)
    refused(message)


def test_an_overflowing_number_is_refused(payload: Path, refused: Callable[..., None]) -> None:
    text = (payload / CONFIG).read_text()
    (payload / CONFIG).write_text(text.replace('"lora_alpha": 4', '"lora_alpha": 1e999'))
    refused("lora_alpha is 'inf', not a finite number")


# Patterns

SLOW = [
    "(a|a)*b",
    "(a+)+b",
    "(.*)*x",
    "(?:(?:a?){60}){60}b",
    "(a{0,64}){0,64}b",
    "(a?){30}(a|a){30}b",
    ".*.*.*.*.*.*b",
    r"(\w+\.)*q_proj(?=x)",
    r"(a)\1",
    "(?=(a+)+b)",
]

REAL = [
    r".*\.(q_proj|v_proj)$",
    r"^model\.layers\.(?:[0-9]|1[0-9]|2[0-7])\.self_attn\.(q|k|v|o)_proj$",
    r"model\.layers\.\d+\.mlp\.(?:gate|up|down)_proj",
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?"
    r"(?:q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj).*?)|(?:\bmodel\.layers\."
    r"[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\.(?:(?:q_proj|k_proj"
    r"|v_proj|o_proj|gate_proj|up_proj|down_proj)))",
    r"^(?!.*vision).*\.(q_proj|v_proj)$",
    r"^(language_model|model)(?=\.).*\.(up_proj|k_proj|down_proj|q_proj|o_proj|v_proj|gate_proj)$",
    r"(.*)(language_model)(.*)(q_proj|k_proj|v_proj|o_proj)$",
]


@pytest.mark.parametrize("key", ["target_modules", "exclude_modules", "layers_pattern"])
@pytest.mark.parametrize("pattern", SLOW)
def test_a_pattern_that_re_cannot_match_in_time_is_refused(
    payload: Path, refused: Callable[..., None], key: str, pattern: str
) -> None:
    edit_config(payload, **{key: pattern})
    refused(f"{key} could take forever to match")


def test_keys_of_the_rank_pattern_are_patterns_too(
    payload: Path, refused: Callable[..., None]
) -> None:
    edit_config(payload, rank_pattern={"(a|a)*b": 2})
    refused("rank_pattern.(a|a)*b could take forever")


@pytest.mark.parametrize("pattern", ["(", "a" * 20_000, "(" * 5000 + ")" * 5000, "a{99999999999}"])
def test_what_is_no_pattern_is_refused(
    payload: Path, refused: Callable[..., None], pattern: str
) -> None:
    edit_config(payload, target_modules=pattern)
    refused("target_modules")


@pytest.mark.parametrize("pattern", REAL)
def test_published_patterns_pass_and_are_fast(pattern: str) -> None:
    assert check_patterns({"target_modules": pattern}) is None
    names = [f"model.language_model.layers.{n}.self_attn.attn.dense.mlp.other" for n in range(40)]
    compiled = re.compile(pattern)
    start = time.perf_counter()
    for name in names:
        compiled.fullmatch(name)
    assert time.perf_counter() - start < 2


def test_the_worst_pattern_that_passes_ends_in_time() -> None:
    pattern = ".*.*.*.*b"
    assert check_patterns({"target_modules": pattern}) is None
    start = time.perf_counter()
    re.fullmatch(pattern, "model.layers.10.self_attn." * 4)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("pattern", [p for p in REAL if "(?!" not in p and "(?=" not in p])
def test_patterns_match_as_re_does(pattern: str) -> None:
    names = [
        f"{root}layers.{layer}.{block}.{name}"
        for root in ("model.", "language_model.model.", "vision.")
        for layer in (0, 27, 28)
        for block in ("self_attn", "mlp")
        for name in ("q_proj", "up_proj", "other")
    ]
    expected = [name for name in names if not re.fullmatch(pattern, name)]
    assert uncovered(pattern, names) == expected


@pytest.mark.parametrize(
    "targets", [["k_proj"], r".*\.k_proj", ["self_attn"], ["proj"], [], ["model.q_proj"]]
)
def test_weights_that_peft_would_drop_are_refused(
    payload: Path, refused: Callable[..., None], targets: Any
) -> None:
    edit_config(payload, target_modules=targets)
    refused("leaves out model.layers.0.self_attn.q_proj (1 of 1 modules)")


@pytest.mark.parametrize(
    "targets",
    [["q_proj"], ["self_attn.q_proj"], "all-linear", None, r".*q_proj", r"(?!x).*q_proj"],
)
def test_targets_that_cover_the_weights_pass(
    payload: Path, check: Callable[..., None], targets: Any
) -> None:
    edit_config(payload, target_modules=targets)
    check()


# Tensors


def test_a_header_is_read_strictly(payload: Path, refused: Callable[..., None]) -> None:
    entry = '"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    raw = f"{{{entry}, {entry}}}".encode()
    (payload / WEIGHTS).write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * 4)
    refused("adapter_model.safetensors is not a valid safetensors file: its header: the key 't'")


def test_a_truncated_file_is_refused(payload: Path, refused: Callable[..., None]) -> None:
    whole = (payload / WEIGHTS).read_bytes()
    (payload / WEIGHTS).write_bytes(whole[:-1])
    refused("adapter_model.safetensors is not a valid safetensors file: it is truncated")


def test_an_empty_adapter_is_refused(payload: Path, refused: Callable[..., None]) -> None:
    save_file({}, payload / WEIGHTS)
    refused("it holds no tensor")


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_])
def test_only_floats_are_stored(payload: Path, refused: Callable[..., None], dtype: Any) -> None:
    edit_tensors(payload, {f"{Q}.lora_A.weight": np.ones((2, 8), dtype)})
    refused(f"tensor {Q}.lora_A.weight is ")


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("place", [0, -1])
def test_nan_and_inf_are_refused(
    payload: Path, refused: Callable[..., None], value: float, dtype: Any, place: int
) -> None:
    bad = floats(2, 8).astype(dtype)
    bad.reshape(-1)[place] = value
    edit_tensors(payload, {f"{Q}.lora_A.weight": bad})
    refused(f"tensor {Q}.lora_A.weight holds NaN or Inf")


@pytest.mark.parametrize(("bits", "good"), [(0x7F80, False), (0xFFC0, False), (0x7F7F, True)])
def test_nan_and_inf_in_bf16(
    payload: Path, check: Callable[..., None], refused: Callable[..., None], bits: int, good: bool
) -> None:
    names = (f"{Q}.lora_A.weight", f"{Q}.lora_B.weight")
    header = {
        names[0]: {"dtype": "BF16", "shape": [2, 8], "data_offsets": [0, 32]},
        names[1]: {"dtype": "BF16", "shape": [8, 2], "data_offsets": [32, 64]},
    }
    raw = json.dumps(header).encode()
    data = struct.pack("<32H", *[0x3F80] * 31, bits)
    (payload / WEIGHTS).write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    if good:
        check()
    else:
        refused(f"tensor {names[1]} holds NaN or Inf")


def test_values_are_scanned_beyond_the_first_piece(
    payload: Path, make_manifest: MakeManifest
) -> None:
    wide = floats(2, 2**20 + 3)
    edit_tensors(payload, {f"{Q}.lora_A.weight": wide})
    check_payload(payload, make_manifest(), None)
    wide[1, -1] = np.nan
    edit_tensors(payload, {f"{Q}.lora_A.weight": wide})
    with pytest.raises(AdzError, match="holds NaN or Inf"):
        check_payload(payload, make_manifest(), None)


def test_the_largest_and_smallest_numbers_pass(payload: Path, check: Callable[..., None]) -> None:
    edge = np.full((2, 8), np.finfo(np.float32).max, np.float32)
    edge[0, :4] = [np.finfo(np.float32).smallest_subnormal, -0.0, 0.0, np.finfo(np.float32).min]
    edit_tensors(payload, {f"{Q}.lora_A.weight": edge})
    check()


def test_ranks_of_a_pair_agree(payload: Path, refused: Callable[..., None]) -> None:
    edit_tensors(payload, {f"{Q}.lora_A.weight": floats(4, 8)})
    refused(f"the ranks of {Q}.lora_A.weight (4, 8) and its partner (8, 2) differ")


def test_a_rank_is_the_one_of_the_configuration(
    payload: Path, check: Callable[..., None], refused: Callable[..., None]
) -> None:
    edit_tensors(payload, {f"{Q}.lora_A.weight": floats(4, 8), f"{Q}.lora_B.weight": floats(8, 4)})
    refused(f"{Q}.lora_A.weight has rank 4, adapter_config.json says 2")
    edit_config(payload, rank_pattern={"q_proj": 4})
    check()


def test_a_rank_is_bounded_whatever_the_configuration_says(
    payload: Path, refused: Callable[..., None]
) -> None:
    edit_config(payload, peft_type="ADALORA")
    edit_tensors(
        payload, {f"{Q}.lora_A.weight": floats(513, 8), f"{Q}.lora_B.weight": floats(8, 513)}
    )
    refused(f"{Q}.lora_A.weight has rank 513, at most 512")


@pytest.mark.parametrize("half", ["lora_A.weight", "lora_B.weight"])
def test_half_a_pair_is_refused(payload: Path, refused: Callable[..., None], half: str) -> None:
    edit_tensors(payload, {f"{Q}.{half}": None})
    refused("beside it")


@pytest.mark.parametrize("prefix", ["", "model.", "base_model.mode."])
def test_a_wrong_prefix_is_refused(
    payload: Path, refused: Callable[..., None], prefix: str
) -> None:
    tensors = load_file(payload / WEIGHTS)
    renamed = {n.replace("base_model.model.", prefix, 1): t for n, t in tensors.items()}
    save_file(renamed, payload / WEIGHTS)
    refused("is not below base_model.model.", known=False)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("q_proj", "qq_proj"),
        ("layers.0", "layers.1"),
        ("model.layers", "model.model.layers"),
        ("model.layers", "layers"),
    ],
)
def test_an_adapter_of_another_base_is_refused(
    payload: Path, check: Callable[..., None], refused: Callable[..., None], old: str, new: str
) -> None:
    edit_config(payload, target_modules=None)
    tensors = load_file(payload / WEIGHTS)
    save_file({n.replace(old, new): t for n, t in tensors.items()}, payload / WEIGHTS)
    check(known=False)
    refused("none of its 2 tensors match a module of llama")


def test_an_adapter_that_fits_partly_is_refused(
    payload: Path, refused: Callable[..., None]
) -> None:
    other = Q.replace("q_proj", "k_proj")
    edit_config(payload, target_modules=["q_proj", "k_proj"])
    edit_tensors(
        payload, {f"{other}.lora_A.weight": floats(2, 8), f"{other}.lora_B.weight": floats(8, 2)}
    )
    refused(f"2 of its 4 tensors match a module of llama: {other}.lora_A.weight does not")


@pytest.mark.parametrize(
    ("name", "tensor", "expected"),
    [
        ("lora_A.weight", floats(2, 9), "(r, 8) expected"),
        ("lora_B.weight", floats(9, 2), "(8, r) expected"),
        ("lora_magnitude_vector", floats(9), "8 elements expected"),
        ("ia3_l", floats(9, 1), "8 elements expected"),
        ("base_layer.weight", floats(8, 9), "(8, 8) expected"),
    ],
)
def test_dimensions_are_those_of_the_base(
    payload: Path, refused: Callable[..., None], name: str, tensor: np.ndarray, expected: str
) -> None:
    edit_tensors(payload, {f"{Q}.{name}": tensor})
    refused(f"q_proj of llama is (8, 8): {expected}")


@pytest.mark.parametrize("zero", ["lora_A.weight", "lora_B.weight"])
def test_an_imported_adapter_that_does_nothing_is_refused(
    payload: Path, check: Callable[..., None], refused: Callable[..., None], zero: str
) -> None:
    old = load_file(payload / WEIGHTS)[f"{Q}.{zero}"]
    edit_tensors(payload, {f"{Q}.{zero}": np.zeros_like(old) * -1})
    refused("its low-rank products are all zero: the adapter changes nothing")
    check(made_by="merge")
    edit_tensors(payload, {f"{Q}.lora_magnitude_vector": floats(8)})
    check()


@pytest.fixture
def prompt(payload: Path) -> Path:
    values = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}
    (payload / CONFIG).write_text(json.dumps(values))
    save_file({"prompt_embeddings": floats(4, 8)}, payload / WEIGHTS)
    return payload


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"prompt_embeddings": floats(3, 8)}, "adapter_config.json says 4 virtual tokens"),
        ({"prompt_embeddings": floats(4)}, "adapter_config.json says 4 virtual tokens"),
        ({"prompt_embeddings": floats(4, 9)}, "has width 9, not 8 (the base's hidden size)"),
        ({"other": floats(4, 8)}, "it holds other but no prompt_embeddings"),
    ],
)
def test_virtual_tokens_fit_the_base(
    prompt: Path,
    check: Callable[..., None],
    refused: Callable[..., None],
    tensors: dict[str, np.ndarray],
    message: str,
) -> None:
    check()
    save_file(tensors, prompt / WEIGHTS)
    refused(message)


def test_a_method_of_its_own_has_its_own_names(
    payload: Path, check: Callable[..., None], refused: Callable[..., None]
) -> None:
    (payload / CONFIG).write_text('{"size": 3}')
    save_file({"down": floats(2, 2)}, payload / WEIGHTS)
    check(storage="own", method="bottleneck")
    refused("peft_type is 'None'")
    save_file({"down": np.full((2, 2), np.nan, np.float32)}, payload / WEIGHTS)
    refused("tensor down holds NaN or Inf", storage="own", method="bottleneck")
    (payload / CONFIG).write_text('{"trust_remote_code": true}')
    refused("trust_remote_code may not be", storage="own", method="bottleneck")
