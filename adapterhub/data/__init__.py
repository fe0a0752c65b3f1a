"""Data sets: reading rows of any format, the hold-out, and what the model is shown."""

from adapterhub.data.dataset import DataSet, read_examples
from adapterhub.data.mixture import Mixture, mix
from adapterhub.data.prompt import (
    as_messages,
    choose_format,
    encode,
    encode_prompt,
    encode_rejected,
    encode_turns,
    render,
    render_turns,
    stop_token,
)
from adapterhub.data.split import split_holdout

__all__ = [
    "DataSet",
    "Mixture",
    "as_messages",
    "choose_format",
    "encode",
    "encode_prompt",
    "encode_rejected",
    "encode_turns",
    "mix",
    "read_examples",
    "render",
    "render_turns",
    "split_holdout",
    "stop_token",
]
