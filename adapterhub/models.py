"""Loading a base, its tokenizer and an adapter: local files, safetensors, no remote code."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from adapterhub import specs
from adapterhub.errors import AdzError
from adapterhub.plugins import load_plugins

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from adapterhub.manifest import BaseRecord, Version
    from adapterhub.protocols import Method

_NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})
_LOCAL = {"local_files_only": True, "trust_remote_code": False}
# The device files of NVIDIA, AMD, Intel and others, of Windows' subsystem, and of NPUs and TPUs.
_ACCELERATORS = (
    "nvidia*", "kfd", "dri/render*", "dxg", "accel*", "apex_*", "davinci*", "vfio/[0-9]*",
)  # fmt: skip
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})


def load_base(
    record: BaseRecord,
    *,
    dtype: torch.dtype | str = "auto",
    arguments: Mapping[str, Any] = _NO_ARGUMENTS,
) -> PreTrainedModel:
    """The base in evaluation mode, on the CPU unless `arguments` places it elsewhere.

    dtype: a torch dtype, its name, or `auto`: the stored one, but float32 where only a CPU
    without instructions for bfloat16 would compute. arguments: more for `from_pretrained`,
    such as a quantizer's. Raises AdzError when the files are not there or not loadable.
    """
    from transformers import AutoModelForCausalLM

    directory = _directory_of(record)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=_resolve_dtype(dtype), use_safetensors=True, **_LOCAL, **arguments
        )
    # ImportError: of a base that is stored by a quantizer whose library is missing.
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise _not_loadable(record, "model", error) from error
    return model.eval()


def empty_base(record: BaseRecord) -> PreTrainedModel:
    """The base without weights (`meta`), frozen. Raises AdzError when its configuration is not
    there, or makes no model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    directory = _directory_of(record)
    try:
        config = AutoConfig.from_pretrained(directory, **_LOCAL)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise _not_loadable(record, "configuration", error) from error
    return cast("PreTrainedModel", model.requires_grad_(False))


def load_tokenizer(record: BaseRecord) -> PreTrainedTokenizerBase:
    """The base's tokenizer. Raises AdzError when it is not there or not loadable."""
    from transformers import AutoTokenizer

    directory = _directory_of(record)
    try:
        return AutoTokenizer.from_pretrained(directory, **_LOCAL)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise _not_loadable(record, "tokenizer", error) from error


def load_adapter(model: torch.nn.Module, version: Version, directory: Path) -> torch.nn.Module:
    """The version's adapter over `model`, by the method that made it, for inference.

    `directory` is what `Registry.path(version)` returned. `model` stays as it is: the result
    has modules of its own and shares the weights, so that many adapters over one base cost
    their own size each and never see one another.
    """
    return load_directory(model, version.manifest.method, directory)


def load_directory(model: torch.nn.Module, method: str, directory: Path) -> torch.nn.Module:
    """As `load_adapter`, of an adapter that is no version: `method` is the name of what made it."""
    plugins = load_plugins()
    component = plugins.get(specs.Method, method)
    loader = cast("Method", plugins.load_implementation(component)())
    return loader.load(share_weights(model), directory).eval()


def share_weights(model: torch.nn.Module, own: Iterable[torch.Tensor] = ()) -> torch.nn.Module:
    """A copy of `model` with modules of its own over the same weights, but for those that lie
    where one of `own` does: these it has for itself."""
    from itertools import chain

    from torch.nn import Parameter

    places = {tensor.data_ptr() for tensor in own}
    shared: dict[int, Any] = {}
    for tensor in chain(model.parameters(), model.buffers()):
        if tensor.data_ptr() in places:
            continue
        # A parameter of its own, because some methods bind other data to it. Subclasses
        # (quantised ones) carry more than data and are shared as they are.
        plain = type(tensor) is Parameter
        shared[id(tensor)] = Parameter(tensor.data, requires_grad=False) if plain else tensor
    return copy.deepcopy(model, shared)


def compute_device() -> torch.device:
    """Where inference runs: the accelerator, where there is one, or the CPU."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def may_accelerate() -> bool:
    """Whether there may be anything but a CPU to compute on. Asks no driver and imports no torch:
    False is certain, True is not."""
    devices = Path("/dev")
    return sys.platform != "linux" or any(
        next(devices.glob(pattern), None) for pattern in _ACCELERATORS
    )


def cpu_has_bf16() -> bool:
    """Whether this CPU computes in bfloat16; without, bf16 is slower than float32 on it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return not _BF16_FLAGS.isdisjoint(value.split())
    return False


def _resolve_dtype(dtype: torch.dtype | str) -> Any:
    if dtype == "auto" and compute_device().type == "cpu" and not cpu_has_bf16():
        return "float32"
    return dtype


def _directory_of(record: BaseRecord) -> Path:
    directory = Path(record.path)
    if not directory.is_dir():
        raise AdzError(
            f"the files of base {record.name!r} are gone: {directory}",
            f"add it again: adz base add {record.name} {record.source}",
        )
    return directory


def _not_loadable(record: BaseRecord, part: str, error: Exception) -> AdzError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return AdzError(f"the {part} of base {record.name!r} cannot be loaded: {reason}")
