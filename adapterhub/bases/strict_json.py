"""JSON from strangers: only what every parser reads the same way."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def parse_object(raw: bytes, parse_int: Callable[[str], int] = int) -> dict[str, Any]:
    """The JSON object in `raw`. Raises ValueError for malformed UTF-8 or JSON, a key that is
    there twice, NaN or Infinity, nesting that is too deep, or anything but an object."""
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=parse_int,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON at line {error.lineno}: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 at byte {error.start}") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the key {key[:80]!r} is there twice")
        result[key] = value
    return result


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")
