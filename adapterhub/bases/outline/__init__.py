"""What a dry run asks of a base, kept so that the next one needs neither torch nor transformers."""

from adapterhub.bases.outline.layout import BaseModule, Layout
from adapterhub.bases.outline.store import Outline, forget_outline, read_outline, write_outline
from adapterhub.bases.outline.tokenizer import KeptTokenizer

__all__ = [
    "BaseModule",
    "KeptTokenizer",
    "Layout",
    "Outline",
    "forget_outline",
    "read_outline",
    "write_outline",
]
