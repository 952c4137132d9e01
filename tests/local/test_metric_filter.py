"""CloudWatch Logs filter patterns."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.metric_filter import UnsupportedPattern, parse, select

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
WORDS = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,10}", fullmatch=True)
# No backslash, quote or star: those are the pattern's own.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters='\\"*%'), max_size=12)
DOCUMENT = {
    "reason": "fetch_denied",
    "status": 403,
    "ratio": 0.5,
    "cold": False,
    "parent": None,
    "request": {"host": "10.0.0.1", "tags": ["first", "second"]},
}


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ('{ $.reason = "fetch_denied" }', True),
        ('{ $.reason = "fetch_*" }', True),
        ("{ $.reason = fetch_denied }", True),
        ('{ $.reason = "denied" }', False),
        ('{ $.reason != "fetch_denied" }', False),
        ("{ $.reason = %denied$% }", True),
        ('{ $.absent != "x" }', False),
        ("{ $.status = 403 }", True),
        ("{ $.status = 4* }", True),
        ("{ $.status >= 400 && $.status < 500 }", True),
        ("{ $.status > 403 }", False),
        ('{ $.status = 500 || $.request.host = "10.*" }', True),
        ('{ ($.status = 500 || $.status = 403) && $.reason = "x" }', False),
        ('{ $.status = 500 && $.reason = "x" || $.ratio < 1 }', True),
        ('{ $.request.tags[1] = "second" }', True),
        ("{ $.request.tags[2] NOT EXISTS }", True),
        ("{ $.reason NOT EXISTS }", False),
        ("{ $.cold IS FALSE }", True),
        ("{ $.cold IS TRUE }", False),
        ("{ $.parent IS NULL }", True),
        ("{ $.absent IS NULL }", False),
        ("{ $.reason > 1 }", False),
        ("%fetch_[a-z]+%", True),
        ("%^fetch%", False),
        ("", True),
        ("fetch_denied", True),
        ("reason -fetch_denied", False),
        ("?absent ?reason", True),
        ('"10.0.0.1" second', True),
        ("absent", False),
    ],
)
def test_pattern_on_a_json_message(pattern: str, matches: bool) -> None:
    assert parse(pattern)(json.dumps(DOCUMENT)) is matches


def test_json_pattern_does_not_match_plain_text() -> None:
    assert not parse("{ $.reason NOT EXISTS }")("START RequestId: 1")


@pytest.mark.parametrize(
    "pattern",
    [
        "[ip, user]",
        "{ $.a = }",
        "{ $.a }",
        "{ $.a = 1",
        "{ a = 1 }",
        "{ $.a = 1 && }",
        "{ ($.a = 1 }",
        "{ $.a = 1) }",
        "{ $.a IS SOMETIMES }",
        "{ $.a[*] = 1 }",
        "{ $.a > many }",
        "{}",
        "%(%",
        "AccessDenied*",
        "one ?other",
    ],
)
def test_other_syntax_is_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedPattern):
        parse(pattern)


@given(NAMES, TEXTS, st.recursive(st.none() | st.booleans() | st.integers() | TEXTS, lambda v: st.lists(v, max_size=2)))
def test_a_field_equals_a_quoted_string_exactly_when_its_value_is_that_string(name: str, text: str, value: Any) -> None:
    message = json.dumps({name: value})
    equal = parse(f'{{ $.{name} = "{text}" }}')
    unequal = parse(f'{{ $.{name} != "{text}" }}')
    expected = value == text if isinstance(value, str) else json.dumps(value) == text
    assert equal(message) is expected
    assert unequal(message) is not expected


@given(NAMES, st.lists(st.integers(0, 5), min_size=1, max_size=5), st.integers(0, 5))
def test_or_and_and_are_any_and_all(name: str, wanted: list[int], value: int) -> None:
    message = json.dumps({name: value})
    conditions = [f"$.{name} = {number}" for number in wanted]
    assert parse("{ " + " || ".join(conditions) + " }")(message) is (value in wanted)
    assert parse("{ " + " && ".join(conditions) + " }")(message) is ({value} == set(wanted))


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(WORDS, max_size=4))
def test_terms_are_all_needed(needed: list[str], given_words: list[str]) -> None:
    message = " ".join(given_words)
    assert parse(" ".join(needed))(message) is all(term in message for term in needed)


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_parses_or_is_refused(pattern: str, message: str) -> None:
    try:
        matches = parse(pattern)
    except UnsupportedPattern:
        return
    assert matches(message) in (True, False)


@given(NAMES, st.integers())
def test_select_reads_what_json_writes(name: str, value: int) -> None:
    assert select(json.dumps({"outer": [{name: value}]}), f"$.outer[0].{name}") == value
    assert select(json.dumps({"outer": []}), f"$.outer[0].{name}") is None
    assert select("not json", "$.a") is None
