"""Tools: calls whose arguments keep to the tool's schema."""

from __future__ import annotations

_PARSER = "--tool-call-parser"
_STRICTNESS = "--tool-strict-level"


def with_strict_tools(extra: tuple[str, ...]) -> tuple[str, ...]:
    """vLLM's flags `extra`, and where they switch tools on and say no more, that arguments keep
    to the schema.

    By itself vLLM takes any JSON value as arguments, also a text where the schema says object,
    unless the request calls the tool `strict`: small models then often write what no client reads.
    """
    flags = {argument.partition("=")[0].replace("_", "-") for argument in extra}
    if _PARSER not in flags or _STRICTNESS in flags:
        return extra
    return (*extra, _STRICTNESS, "parameter")
