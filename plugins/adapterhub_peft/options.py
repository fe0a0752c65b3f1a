"""The options of each method, as pydantic models of PEFT's schema. Imports no torch.

`adapterhub_peft.options:lora` is the model of the method `lora`, built when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, create_model

from adapterhub_peft.catalogue import Entry, entries
from adapterhub_peft.schema import Option, PeftType, peft_types, read_type

_PLAIN: Mapping[str, Any] = {
    "int": int, "float": float, "bool": bool, "str": str, "null": None, "any": Any,
}  # fmt: skip
# PEFT takes whatever it is given; these could only be a slip.
_LIMITS: Mapping[str, Mapping[str, Any]] = {
    "r": {"ge": 1},
    "tokens": {"ge": 1},
    "alpha": {"gt": 0},
    "dropout": {"ge": 0, "lt": 1},
}


class PeftOptions(BaseModel):
    """Options of a method of PEFT.

    `suggested_lr` is the peak learning rate where the recipe names none; `entry` says which
    method it is, and `kind` how PEFT calls the options. `renamed` has PEFT's names of those that
    are called otherwise here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    suggested_lr: ClassVar[float | None]
    entry: ClassVar[Entry]
    kind: ClassVar[PeftType]
    renamed: ClassVar[Mapping[str, str]]

    def fields(self) -> dict[str, Any]:
        """What was given and what this method sets, by PEFT's names of the fields."""
        given = {
            option.field: getattr(self, name)
            for name, option in self.kind.options.items()
            if name in type(self).model_fields
        }
        return given | dict(self.entry.fixed)


def __getattr__(name: str) -> type[PeftOptions]:
    if name not in entries():
        raise AttributeError(f"{name} is no method of PEFT")
    return _model(name)


@cache
def _model(method: str) -> type[PeftOptions]:
    entry = entries()[method]
    kind = peft_types()[entry.type]
    shown = {n: o for n, o in kind.options.items() if o.field not in entry.fixed}
    fields: dict[str, Any] = {n: _field(n, o, entry.defaults) for n, o in shown.items()}
    model: Any = create_model(
        f"Options of {method}", __base__=PeftOptions, __module__=__name__, **fields
    )
    model.suggested_lr = entry.lr
    model.entry, model.kind = entry, kind
    model.renamed = {o.field: n for n, o in shown.items() if o.field != n}
    built: type[PeftOptions] = model
    return built


def _field(name: str, option: Option, defaults: Mapping[str, Any]) -> tuple[Any, Any]:
    default = defaults.get(name, option.default)
    # A whole number to PEFT, which scales by it as by any other.
    annotation = float if name == "alpha" and default is not None else _annotation(option.kind)
    if name in ("targets", "feedforward"):
        annotation = str | list[str]
    elif name == "parameters":
        annotation = Literal["auto"] | list[str]
    elif default is None:
        annotation = annotation | None
    # Some types have a rank of 0 for none.
    limits = {} if default in (None, 0) and name != "dropout" else _LIMITS.get(name, {})
    if name in defaults and defaults[name] is ...:
        return annotation, Field(description=option.help, **limits)
    return annotation, Field(default=default, description=option.help, **limits)


def _annotation(kind: Any) -> Any:
    if isinstance(kind, list):
        return Union[tuple(_annotation(member) for member in kind)]  # noqa: UP007
    if isinstance(kind, str):
        return _PLAIN[kind]
    if "choice" in kind:
        # PEFT writes a pattern among the choices: `pissa_niter_[number of iters]`.
        plain = tuple(c for c in kind["choice"] if "[" not in str(c))
        patterns = [_pattern(c) for c in kind["choice"] if "[" in str(c)]
        return Union[(Literal[plain], *patterns)]
    if "list" in kind:
        return list[_annotation(kind["list"])]  # type: ignore[misc]
    if "dict" in kind:
        return dict[str, _annotation(kind["dict"])]  # type: ignore[misc]
    return _nested(kind)


def _pattern(choice: str) -> Any:
    return Annotated[str, Field(pattern=f"^{choice.partition('[')[0]}[0-9]+$")]


def _nested(kind: Mapping[str, Any]) -> Any:
    inner = read_type(kind)
    fields = {name: _field(name, option, {}) for name, option in inner.options.items()}
    settings = ConfigDict(extra="forbid", frozen=True)
    return create_model(inner.config, __config__=settings, **fields)  # type: ignore[call-overload]
