"""Recipes: YAML from `-c`, single values from `-o key=value`, one error for what is unknown.

An option has one name in YAML, on the command line and in an error: `method.r`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from adapterhub.errors import AdzError, usage_error

M = TypeVar("M", bound=BaseModel)

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "model": "a mapping of options",
    "dict": "a mapping of options",
    "list": "a list",
    "tuple": "a list",
}


def read_recipe(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; a malformed one is an error with its line."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise usage_error(f"there is no recipe {path}") from None
    except IsADirectoryError:
        raise usage_error(f"{path} is a directory, not a YAML file") from None
    except UnicodeDecodeError as error:
        raise AdzError(f"{path} is not UTF-8", "save the file as UTF-8") from error
    except OSError as error:
        raise AdzError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it is not YAML"
        raise usage_error(f"{path} is malformed{line}: {problem}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise usage_error(f"{path} is not a mapping of options")
    return value


def parse_overrides(items: Iterable[str]) -> dict[str, Any]:
    """`key.sub=value` pairs as a nested mapping; values are read as YAML scalars or lists."""
    result: dict[str, Any] = {}
    for item in items:
        key, separator, text = item.partition("=")
        if not separator or not key:
            raise usage_error(f"{item!r} is not key=value", "for example -o method.r=32")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise usage_error(f"the value in {item!r} is malformed") from error
        # YAML 1.1 reads 1e-4 as text; everyone who types it means the number.
        if isinstance(value, str):
            value = _number(value)
        merge_into(result, _nested(key.split("."), value))
    return result


def merge_into(target: dict[str, Any], source: Mapping[str, Any]) -> None:
    """Lay `source` over `target` in place, mapping by mapping."""
    for key, value in source.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            merge_into(target[key], value)
        else:
            target[key] = dict(value) if isinstance(value, Mapping) else value


def validate(model: type[M], values: Mapping[str, Any], prefix: str = "") -> M:
    """Build `model`; the first wrong value becomes one line with the option's full name."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        path = _option_path(model, [str(part) for part in first["loc"]])
        name = ".".join([prefix, *path] if prefix else path)
        if first["type"] in ("extra_forbidden", "invalid_key"):
            # A model may know its options by other names too, which only explain.
            renamed = getattr(model, "renamed", {}) if len(path) == 1 else {}
            near = [renamed[path[-1]]] if path[-1] in renamed else []
            known = _fields(model, path[:-1])
            near = near or get_close_matches(path[-1], known, n=1)
            there = "there are " + ", ".join(known) if known else ""
            # With its section, so that it can be typed as it stands.
            section = name.removesuffix(path[-1]).rpartition(" ")[2]
            hint = f"did you mean {section}{near[0]}?" if near else there
            raise usage_error(f"unknown option {name}", hint) from error
        if first["type"] == "missing":
            raise usage_error(f"{name} is not given") from error
        given = first.get("input")
        raise usage_error(f"{name}: {_problem(first)}, got {given!r}") from error


def _option_path(model: type[BaseModel], path: list[str]) -> list[str]:
    # pydantic adds the member of a union that it tried last: `data.holdout.float`.
    current: Any = model
    for depth, part in enumerate(path, 1):
        field = getattr(current, "model_fields", {}).get(part)
        if field is None:
            return path
        current = _nested_model(field.annotation)
        if current is None and get_origin(field.annotation) in (Union, UnionType):
            return path[:depth]
    return path


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    """The model that an option holds, or may hold beside nothing."""
    members = [a for a in get_args(annotation) if a is not NoneType] or [annotation]
    found = members[0]
    return (
        found
        if len(members) == 1 and isinstance(found, type) and issubclass(found, BaseModel)
        else None
    )


def _problem(error: Mapping[str, Any]) -> str:
    # pydantic's own words for a wrong type name Python's classes.
    kind, _, how = error["type"].partition("_")
    if kind in _KINDS and how in ("type", "parsing", "from_float"):
        return f"input should be {_KINDS[kind]}"
    message: str = error["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _nested(keys: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return dict(value)


def _number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _fields(model: type[BaseModel], path: list[str]) -> list[str]:
    current: Any = model
    for part in path:
        field = current.model_fields.get(part)
        current = _nested_model(field.annotation) if field else None
        if current is None:
            return []
    return list(current.model_fields)
