"""How many parameters the methods of plain low rank train in each layer. Imports no torch.

Whatever is not plain, such as ranks of its own for a layer, is None: PEFT itself is asked then, and
tells what is wrong with it, if something is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping

from adapterhub.bases.outline import BaseModule, Layout
from adapterhub_peft.options import PeftOptions

_ALL_LINEAR = "all-linear"
_ANY_VALUE = frozenset({"lora_alpha", "lora_dropout", "target_modules", "use_rslora"})
_LORA = _ANY_VALUE | {"r", "use_dora", "init_lora_weights", "target_parameters"}
_ADALORA = _ANY_VALUE | {"init_r", "target_r"}
# Beginnings that a layer without weights can have.
_PLAIN_INITS = (True, False, "gaussian", "eva")


def lora(layout: Layout, options: PeftOptions) -> Mapping[str, int] | None:
    """r (in + out), and with DoRA a magnitude for each output."""
    fields = options.fields()
    if fields["init_lora_weights"] not in _PLAIN_INITS:
        return None
    if fields["target_parameters"] not in (None, [], "auto"):
        return None
    magnitude = bool(fields["use_dora"])

    def count(inputs: int, outputs: int) -> int:
        return int(fields["r"]) * (inputs + outputs) + magnitude * outputs

    return _forecast(layout, options, _LORA, count)


def adalora(layout: Layout, options: PeftOptions) -> Mapping[str, int] | None:
    """r (in + out + 1), where r is the rank that it begins with: the factors and their values."""
    rank = int(options.fields()["init_r"])
    return _forecast(
        layout, options, _ADALORA, lambda inputs, outputs: rank * (inputs + outputs + 1)
    )


def _forecast(
    layout: Layout,
    options: PeftOptions,
    free: Collection[str],
    count: Callable[[int, int], int],
) -> Mapping[str, int] | None:
    """free: the fields that may have any value; the others must have PEFT's default."""
    fields = options.fields()
    known = {option.field: option.default for option in options.kind.options.values()}
    plain = all(fields.get(name) == known[name] for name in known if name not in free)
    if layout.stacked or not plain:
        return None
    modules = _targets(layout, fields["target_modules"])
    if modules is None:
        return None
    sizes = {module.name: module.size for module in modules}
    if layout.output in sizes:
        return None
    found = {name: count(*size) for name, size in sizes.items() if size is not None}
    return found if found and len(found) == len(sizes) else None


def _targets(layout: Layout, targets: str | list[str]) -> list[BaseModule] | None:
    """The modules that match by PEFT's rules; None where an entry of a list matches none."""
    if targets == _ALL_LINEAR:
        return [m for m in layout.modules if m.linear and m.name != layout.output]
    if isinstance(targets, list):
        ends = [f".{target}" for target in targets]
        unmatched = any(
            not any(f".{module.name}".endswith(end) for module in layout.modules) for end in ends
        )
        found = [m for m in layout.modules if f".{m.name}".endswith(tuple(ends))]
        return None if unmatched else found
    try:
        return [m for m in layout.modules if re.fullmatch(targets, m.name)]
    except re.error:
        return None
