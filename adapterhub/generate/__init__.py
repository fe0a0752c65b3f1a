"""Generation with a loaded model: what a request asks for, one row of a batch, static batches."""

from adapterhub.generate.row import Row
from adapterhub.generate.sampling import Continuation, Sampling, TokenFilter, TokenScore
from adapterhub.generate.static import generate, stop_tokens

__all__ = [
    "Continuation",
    "Row",
    "Sampling",
    "TokenFilter",
    "TokenScore",
    "generate",
    "stop_tokens",
]
