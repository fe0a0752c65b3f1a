"""What a slot for an adapter costs: vLLM makes room for the largest rank in every layer of each.

It allocates both factors for every weight that an adapter may change, whether one does or not, as
large as the largest rank; so the price of a larger `--max-rank` is known before anything starts.
"""

from __future__ import annotations

from adapterhub.bases.modules import BaseModules, is_vocabulary
from adapterhub.manifest import BaseRecord
from adapterhub_vllm.limits import LEGAL_RANKS

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def slot_bytes(base: BaseRecord, rank: int, dtype: str) -> int:
    """The bytes of one slot's factors: rank x (in + out) for every matrix of the base, its
    embedding and its head too. A quantised base's matrices, of unknown shape, are left out."""
    shapes = {m: s for m, s in BaseModules.read(base).weights().items() if len(s) == 2}
    sizes = [sum(shape) for shape in shapes.values()]
    vocabulary = [sum(shape) for module, shape in shapes.items() if is_vocabulary(module)]
    if len(vocabulary) == 1:
        # The head is tied to the embedding, and gets a slot of its own all the same.
        sizes += vocabulary
    width = _BYTES.get(_TYPES.get(base.dtype, "float32") if dtype == "auto" else dtype, 4)
    return rank * sum(sizes) * width


def padding_note(base: BaseRecord, rank: int, largest: int, slots: int, dtype: str) -> str:
    """One line about the memory that ranks cost. largest: the largest rank that is served."""
    size = slot_bytes(base, rank, dtype) / 1e6
    more = next((legal for legal in LEGAL_RANKS if legal > rank), None)
    text = (
        f"{slots} adapters fit in a batch, each padded to rank {rank}: {size:.0f} MB each, "
        f"{slots * size:.0f} MB in all"
    )
    if 0 < largest < rank:
        merges = ", a merge of two fits" if 2 * largest <= rank else ""
        text += f" (the largest here has rank {largest}{merges})"
    if more is not None:
        text += f"; --max-rank {more} would take {slots * size * more / rank:.0f} MB"
    return text
