"""Expressions: a merge written where a reference stands, `sql*0.7+french*0.3`.

    EXPRESSION = SUM | RULE "(" SUM { "," OPTION } ")"
    SUM        = TERM { ("+" | "-") TERM }
    TERM       = REFERENCE [ "*" WEIGHT ]
    OPTION     = NAME "=" ( WEIGHT | WORD )

Spaces may stand between these. A weight is 1 where none is given. Names and aliases may hold
'-': one that follows them at once is theirs, one behind a space or a weight subtracts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NoReturn

from adapterhub.errors import AdzError, usage_error
from adapterhub.reference import parse_reference

LONGEST = 1024
"""Characters of an expression."""
MOST_OPERANDS = 8

_SIGNS = re.compile(r"[*+()]|\s-")
_RULE = re.compile(r"([a-z][a-z0-9_-]{0,31})\s*\(")
_REFERENCE = re.compile(r"[a-z0-9][a-z0-9._/-]*(?:@[a-z0-9][a-z0-9._:-]*)?")
_NUMBER = re.compile(r"-?(?:[0-9]{1,6}(?:\.[0-9]{1,12})?|\.[0-9]{1,12})(?![0-9a-z.])")
_OPTION = re.compile(r"([a-z][a-z0-9_]{0,31})\s*=")
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,31}")
# Those of `adz merge`; every other option is the rule's own.
_MERGE_OPTIONS = ("compat", "density", "rank", "scale", "seed", "space")
_SHOWN = 24


@dataclass(frozen=True, slots=True)
class Term:
    """One operand. `weight` is finite and not 0."""

    reference: str
    weight: float


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression; `rule` is None for a plain sum. `options` are by name."""

    terms: tuple[Term, ...]
    rule: str | None
    options: tuple[tuple[str, int | float | str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The operands' names, sorted, each once."""
        return tuple(sorted({parse_reference(term.reference).name for term in self.terms}))

    def recipe(self) -> dict[str, Any]:
        """The options of `adz merge` that mean the same; without `rule` for a plain sum."""
        # The order of a sum has no meaning, while a random rule draws by the operands' places.
        terms = sorted(self.terms, key=lambda term: term.reference.partition("@"))
        values: dict[str, Any] = {
            "adapters": tuple(term.reference for term in terms),
            "weights": tuple(term.weight for term in terms),
        }
        if self.rule is not None:
            values["rule"] = self.rule
        own = {name: value for name, value in self.options if name not in _MERGE_OPTIONS}
        values |= {name: value for name, value in self.options if name in _MERGE_OPTIONS}
        return {**values, "options": own} if own else values


def is_expression(text: str) -> bool:
    """Whether `text` is meant as an expression: it holds a sign that no reference has."""
    return _SIGNS.search(text) is not None


def parse_expression(text: str) -> Expression:
    """Parse `text`; raise a usage error that says where and what is wrong with it."""
    if len(text) > LONGEST:
        raise usage_error(f"an expression of {len(text)} characters", f"at most {LONGEST}")
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0

    def parse(self) -> Expression:
        self._skip()
        rule = self._take(_RULE)
        terms = self._sum()
        options: dict[str, int | float | str] = {}
        if rule is not None:
            while self._sign(","):
                self._option(options)
            if not self._sign(")"):
                self._refuse("expected +, - , a comma or )")
        if self._place < len(self._text):
            self._refuse("expected + or - or the end")
        if len(terms) < 2:
            raise usage_error(f"{self._text!r} names one adapter", "a merge takes at least two")
        name = rule[1] if rule else None
        return Expression(tuple(terms), name, tuple(sorted(options.items())))

    def _sum(self) -> list[Term]:
        terms = [self._term(1.0)]
        while (sign := self._sign("+")) or self._sign("-"):
            if len(terms) == MOST_OPERANDS:
                self._refuse(f"more than {MOST_OPERANDS} adapters")
            terms.append(self._term(1.0 if sign else -1.0))
        return terms

    def _term(self, sign: float) -> Term:
        begin = self._place
        found = self._take(_REFERENCE)
        if found is None:
            self._refuse("expected an adapter")
        try:
            parse_reference(found[0])
        except AdzError as error:
            self._place = begin
            self._refuse(error.message, error.hint)
        weight = 1.0
        if self._sign("*"):
            begin = self._place
            number = self._take(_NUMBER)
            if number is None:
                self._refuse("expected a weight, such as 0.7")
            weight = float(number[0])
            if weight == 0:
                self._place = begin
                self._refuse(f"a weight of 0 leaves {found[0]} out")
        return Term(found[0], sign * weight)

    def _option(self, options: dict[str, int | float | str]) -> None:
        begin = self._place
        name = self._take(_OPTION)
        if name is None:
            self._refuse("expected an option by its name alone, such as density=0.5")
        if name[1] in options:
            self._place = begin
            self._refuse(f"{name[1]} is given twice")
        value = self._take(_NUMBER) or self._take(_WORD)
        if value is None:
            self._refuse(f"expected a number or a word for {name[1]}")
        options[name[1]] = _value(value[0])

    def _take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        found = pattern.match(self._text, self._place)
        if found:
            self._place = found.end()
            self._skip()
        return found

    def _sign(self, sign: str) -> bool:
        if not self._text.startswith(sign, self._place):
            return False
        self._place += 1
        self._skip()
        return True

    def _skip(self) -> None:
        while self._text.startswith(" ", self._place):
            self._place += 1

    def _refuse(self, problem: str, hint: str = "") -> NoReturn:
        rest = self._text[self._place :]
        shown = f"{rest[:_SHOWN]}..." if len(rest) > _SHOWN else rest
        where = f"at character {self._place + 1}, {shown!r}" if rest else "at its end"
        raise usage_error(f"the expression is wrong {where}: {problem}", hint)


def _value(text: str) -> int | float | str:
    if _WORD.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)
