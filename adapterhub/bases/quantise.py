"""A base that is stored quantised: made from another one, and recognised."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub import specs
from adapterhub.bases.add import add_made_base, check_name
from adapterhub.bases.digests import copy_companions, read_config
from adapterhub.bases.identity import derivation_from
from adapterhub.bases.verify import verify_base
from adapterhub.config import validate
from adapterhub.environment import environment
from adapterhub.errors import EXIT_VERIFICATION, AdzError, usage_error
from adapterhub.full_disk import is_full_disk
from adapterhub.manifest import BaseRecord
from adapterhub.models import load_base
from adapterhub.plugins import load_plugins
from adapterhub.protocols import Progress, Quantizer, Registry
from adapterhub.staging import home_staging, staging_folder

if TYPE_CHECKING:
    import torch

_LIBRARIES = ("torch", "transformers", "bitsandbytes", "torchao", "hqq", "safetensors")


def stored_quantizer(base: BaseRecord) -> str | None:
    """The name of the quantizer that the base is stored by; None where it is in plain floats."""
    settings = read_config(Path(base.path)).get("quantization_config")
    if not isinstance(settings, dict):
        return None
    method = str(settings.get("quant_method"))
    if method != "bitsandbytes":
        return method
    return str(settings.get("bnb_4bit_quant_type")) if settings.get("load_in_4bit") else "int8"


def check_makes(quantizer: specs.Quantizer) -> None:
    """Raise AdzError for one that quantises no base."""
    if quantizer.stored_only:
        raise usage_error(
            f"{quantizer.name} quantises with data, which adz does not do",
            f"add a base that is stored by {quantizer.name}, and train over it without --quantizer",
        )


def quantise_base(
    registry: Registry,
    base: BaseRecord,
    name: str,
    quantizer: str,
    options: Mapping[str, Any],
    progress: Progress,
) -> BaseRecord:
    """Store `base` quantised as the new base `name`, and return its record. Adapters of `base`
    may be used on it.

    options: of the quantizer. What was stored is loaded and must answer as it did before. Raises
    AdzError where it does not, and for a quantizer whose library cannot store.
    """
    plugins = load_plugins()
    component = plugins.get(specs.Quantizer, quantizer)
    check_makes(component)
    model_of_options = plugins.load_options(component)
    if model_of_options is None and options:
        raise usage_error(f"{component.name} has no options")
    chosen = validate(model_of_options, options, "quantizer") if model_of_options else None
    check_name(registry, name)
    if stored_quantizer(base):
        raise usage_error(f"{base.name} is stored by {stored_quantizer(base)} already")
    verify_base(base)
    arguments = _arguments(component, chosen)
    with staging_folder(home_staging()) as folder:
        directory = folder / "base"
        with progress.task(f"quantising {base.name}", None):
            _write(load_base(base, arguments=arguments), base, component, directory)
        derivation = derivation_from(base, "quantised") | {
            "quantizer": component.name,
            "options": chosen.model_dump(mode="json") if chosen else {},
            "environment": environment(_LIBRARIES, component),
        }
        return add_made_base(registry, name, directory, derivation, progress)


def _arguments(component: specs.Quantizer, options: Any) -> Mapping[str, Any]:
    made: Quantizer = load_plugins().load_implementation(component)()
    arguments = made.load_arguments(options)
    # Without, transformers would store plain floats.
    if "quantization_config" not in arguments:
        raise usage_error(
            f"{component.name} cannot store a base: it quantises one that is loaded",
            f"adz train --quantizer {component.name} does that",
        )
    return arguments


def _write(model: Any, base: BaseRecord, component: specs.Quantizer, directory: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    before = _answers(model)
    free = shutil.disk_usage(directory.parent).free
    try:
        model.save_pretrained(directory)
        stored = AutoModelForCausalLM.from_pretrained(
            directory, dtype=model.dtype, use_safetensors=True, local_files_only=True
        )
        after = _answers(stored.eval())
    # Each library refuses in a way of its own what it cannot store.
    except Exception as error:
        if is_full_disk(error):
            raise _no_space(model, directory.parent, free) from error
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise AdzError(
            f"{component.name} cannot store a base: {reason}",
            f"adz train --quantizer {component.name} quantises it while loading",
        ) from error
    if not torch.equal(before, after):
        raise AdzError(
            f"what {component.name} stored answers otherwise than before it was stored",
            f"nothing is kept; adz train --quantizer {component.name} quantises while loading",
            exit_code=EXIT_VERIFICATION,
        )
    copy_companions(Path(base.path), directory)


def _no_space(model: Any, folder: Path, free: int) -> AdzError:
    """free: bytes on the disk of `folder` before anything was written."""
    needed = model.get_memory_footprint() / 1e6
    return AdzError(
        f"no space left on the disk of {folder.parent}: the quantised base needs about "
        f"{needed:,.1f} MB, {free / 1e6:,.1f} MB were free; nothing is kept",
        "free some space ('adz gc' helps), or move ADZ_HOME to another disk",
    )


def _answers(model: Any) -> torch.Tensor:
    import torch

    ids = torch.arange(8, device=model.device)[None] % model.config.get_text_config().vocab_size
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids).logits.float().cpu()
    return logits
