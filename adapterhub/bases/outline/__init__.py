"""What a dry run asks of a base, kept so that it needs neither torch nor transformers."""

from adapterhub.bases.outline.layout import BaseModule, Layout
from adapterhub.bases.outline.read import matrices, outline_of, read_layout
from adapterhub.bases.outline.store import Outline, forget_outline, read_outline
from adapterhub.bases.outline.tokenizer import KeptTokenizer

__all__ = [
    "BaseModule",
    "KeptTokenizer",
    "Layout",
    "Outline",
    "forget_outline",
    "matrices",
    "outline_of",
    "read_layout",
    "read_outline",
]
