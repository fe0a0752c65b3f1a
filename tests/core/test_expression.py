"""The grammar of expressions: what is read, what is refused and where, and that nothing crashes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapterhub.errors import EXIT_USAGE, AdzError
from adapterhub.expression import LONGEST, MOST_OPERANDS, is_expression, parse_expression

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True)
SELECTORS = st.sampled_from(["", "@3", "@prod", "@sha256:0123abcd", "@to-day"])
REFERENCES = st.builds(
    lambda team, name, selector: team + name + selector,
    st.sampled_from(["", "team/", "my-team/"]),
    NAMES,
    SELECTORS,
)
WEIGHTS = st.decimals(-1000, 1000, places=3).filter(bool)
TERMS = st.lists(st.tuples(REFERENCES, WEIGHTS), min_size=2, max_size=MOST_OPERANDS)
GAPS = st.sampled_from(["", " ", "  "])


def terms_of(text: str) -> list[tuple[str, float]]:
    return [(term.reference, term.weight) for term in parse_expression(text).terms]


@given(terms=TERMS, gap=GAPS, rule=st.sampled_from([None, "ties", "iso-c", "dare_ties"]))
def test_what_is_written_is_what_is_read(
    terms: list[tuple[str, object]], gap: str, rule: str | None
) -> None:
    text = f"{gap}+{gap}".join(f"{name}{gap}*{gap}{weight:f}" for name, weight in terms)
    if rule:
        text = f"{rule}({gap}{text}{gap},{gap}density={gap}0.5 , seed=3)"
    parsed = parse_expression(text)
    assert [(t.reference, t.weight) for t in parsed.terms] == [(n, float(w)) for n, w in terms]  # type: ignore[arg-type]
    assert parsed.rule == rule
    assert parsed.options == ((("density", 0.5), ("seed", 3)) if rule else ())
    assert is_expression(text)


@settings(max_examples=300)
@given(st.text(alphabet="ab1.-_/@*+()=, :é\n0", max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    found: Any = None
    try:
        found = parse_expression(text)
    except AdzError as error:
        found = error
    if isinstance(found, AdzError):
        assert found.exit_code == EXIT_USAGE
        assert "\n" not in str(found)
        assert len(str(found)) < 300
    else:
        assert len(found.terms) >= 2
        assert all(term.weight for term in found.terms)


@given(REFERENCES)
def test_a_reference_is_no_expression(reference: str) -> None:
    assert not is_expression(reference)


def test_a_minus_behind_a_name_is_its_own_and_subtracts_behind_a_space_or_a_weight() -> None:
    assert terms_of("sql-french+x") == [("sql-french", 1), ("x", 1)]
    assert terms_of("sql - french") == [("sql", 1), ("french", -1)]
    assert terms_of("sql -french*.5") == [("sql", 1), ("french", -0.5)]
    assert terms_of("sql*0.7-french*0.3") == [("sql", 0.7), ("french", -0.3)]
    assert terms_of("sql*2+french*-0.3") == [("sql", 2), ("french", -0.3)]
    assert terms_of("sql@to-day-x+b") == [("sql@to-day-x", 1), ("b", 1)]


def test_the_options_are_those_of_a_merge_and_the_rules_own() -> None:
    text = "breadcrumbs(b*2+a,density=0.5,gamma=0.1,rank=sum,space=knots)"
    assert parse_expression(text).recipe() == {
        "adapters": ("a", "b"),
        "weights": (1.0, 2.0),
        "rule": "breadcrumbs",
        "density": 0.5,
        "rank": "sum",
        "space": "knots",
        "options": {"gamma": 0.1},
    }


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("sql*0.7+*0.3", "character 9, '*0.3'", "expected an adapter"),
        ("sql*0.7+French", "character 9, 'French'", "expected an adapter"),
        ("sql*nan+b", "character 5", "expected a weight"),
        ("sql*inf+b", "character 5", "expected a weight"),
        ("sql*1e400+b", "character 5", "expected a weight"),
        ("sql*1.2.3+b", "character 5", "expected a weight"),
        ("sql*\u0661+b", "character 5", "expected a weight"),
        ("sql*9999999+b", "character 5", "expected a weight"),
        ("sql*0+b", "character 5", "leaves sql out"),
        ("sql*0.7french", "character 5", "expected a weight"),
        ("0.7*sql+b", "character 5", "expected a weight"),
        ("sql*0.7 french", "character 9", "expected + or -"),
        ("sql- french+b", "character 6", "expected + or -"),
        ("a+../b", "character 3", "expected an adapter"),
        ("a+/etc/passwd", "character 3", "expected an adapter"),
        ("a+b..c", "character 3", "not a valid name"),
        ("a+b/c/d", "character 3", "not a valid name"),
        ("a+b@0", "character 3", "versions count from 1"),
        ("a+b@sha256:12", "character 3", "malformed digest"),
        ("ties(a+b", "at its end", "expected +, -"),
        ("ties(a+b)x", "character 10", "expected + or - or the end"),
        ("ties(a+b,)", "character 10", "expected an option"),
        ("ties(a+b,density=)", "character 18", "a number or a word"),
        ("ties(a+b,seed=1,seed=2)", "character 17", "given twice"),
        ("ties(ties(a+b)+c)", "character 10", "expected +, -"),
        ("a+", "at its end", "expected an adapter"),
        ("a\n+b", "character 2", "expected + or -"),
        ("+".join("abcdefghi"), "character 17", "more than 8"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, place: str, words: str) -> None:
    with pytest.raises(AdzError) as error:
        parse_expression(text)
    assert place in error.value.message
    assert words in str(error.value)


@pytest.mark.parametrize("text", ["sql*0.5", "ties(a)"])
def test_one_adapter_is_no_merge(text: str) -> None:
    with pytest.raises(AdzError, match="names one adapter"):
        parse_expression(text)


def test_a_long_expression_is_not_read() -> None:
    longest = "a+b".ljust(LONGEST)
    assert len(parse_expression(longest).terms) == 2
    with pytest.raises(AdzError, match=f"{LONGEST + 1} characters"):
        parse_expression(longest + " ")
