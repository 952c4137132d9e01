"""CloudWatch Logs filter patterns: the JSON, regular-expression and plain-term forms.

Grammar (https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html):

    pattern    = "" | "{" or "}" | "%" regex "%" | term+
    or         = and ("||" and)*
    and        = condition ("&&" condition)*
    condition  = "(" or ")" | selector operator value | selector "NOT EXISTS" | selector "IS" (NULL | TRUE | FALSE)
    operator   = "=" | "!=" | "<" | "<=" | ">" | ">="
    selector   = "$" ("." name | "[" index "]")+
    value      = quoted string | bare word or number ("*" is a wildcard in both) | "%" regex "%"
    term       = ["-" | "?"] (word | quoted string)

Space-delimited patterns (`[a, b]`), array wildcards, and optional terms mixed with others are refused.
"""

import json
import operator
import re
from collections.abc import Callable
from typing import Any

Test = Callable[[Any], bool]

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<regex>%(?:[^%\\]|\\.)+%)
      | (?P<selector>\$(?:\.[A-Za-z_@][\w@-]*|\[\d+\])+)
      | (?P<symbol>\|\||&&|!=|<=|>=|[=<>()])
      | (?P<word>[\w.:/@*+-]+)
    )""",
    re.VERBOSE,
)
_TERM = re.compile(r'\s*(?P<sign>[-?]?)(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<word>\w+))(?=\s|$)')
_ORDERINGS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_MISSING = object()


class UnsupportedPattern(ValueError):
    """The pattern is wrong, or uses syntax outside the subset of this module."""


def parse(pattern: str) -> Callable[[str], bool]:
    """Return the test of a log message that `pattern` stands for. Raises UnsupportedPattern."""
    text = pattern.strip()
    if not text:
        return lambda message: True
    if text.startswith("{") and text.endswith("}"):
        test = _JsonPattern(text[1:-1]).parse()
        return lambda message: _matches_json(test, message)
    if len(text) > 2 and text.startswith("%") and text.endswith("%"):
        regex = _compile(text[1:-1])
        return lambda message: regex.search(message) is not None
    return _parse_terms(text)


def select(message: str, selector: str) -> Any:
    """The value at `selector` (`$.a.b[0]`) of a JSON log message, or None where there is none."""
    try:
        value = _at(json.loads(message), _path(selector))
    except ValueError:
        return None
    return None if value is _MISSING else value


def _matches_json(test: Test, message: str) -> bool:
    try:
        document = json.loads(message)
    except ValueError:
        return False
    return isinstance(document, dict | list) and test(document)


def _parse_terms(text: str) -> Callable[[str], bool]:
    needed, excluded, optional = [], [], []
    position = 0
    while position < len(text):
        match = _TERM.match(text, position)
        if not match:
            raise UnsupportedPattern(
                f"cannot read the filter pattern {text!r} from {text[position:]!r} on: put terms with other characters "
                "than letters, digits and underscores in double quotes"
            )
        term = _unescape(match["quoted"]) if match["quoted"] is not None else match["word"]
        {"": needed, "-": excluded, "?": optional}[match["sign"]].append(term)
        position = match.end()
    if optional and (needed or excluded):
        raise UnsupportedPattern(f"optional (?) terms cannot be mixed with others in the filter pattern {text!r}")
    return lambda message: (
        all(term in message for term in needed)
        and not any(term in message for term in excluded)
        and (not optional or any(term in message for term in optional))
    )


class _JsonPattern:
    """Recursive descent over the tokens of what stands between the braces."""

    def __init__(self, text: str):
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        position = 0
        end = len(text.rstrip())
        while position < end:
            match = _TOKEN.match(text, position)
            if not match or match.end() == position:
                raise self._error(f"unexpected {text[position:].strip()!r}")
            self.tokens.append((match.lastgroup or "", match[match.lastgroup or 0]))
            position = match.end()
        self.tokens.append(("end", ""))

    def parse(self) -> Test:
        test = self._or()
        if self.tokens[0][0] != "end":
            raise self._error(f"unexpected {self.tokens[0][1]!r}")
        return test

    def _error(self, reason: str) -> UnsupportedPattern:
        return UnsupportedPattern(f"{reason} in the filter pattern {{{self.text}}}")

    def _next(self, kind: str, *allowed: str) -> str:
        found, text = self.tokens[0]
        if found != kind or (allowed and text not in allowed):
            raise self._error(f"expected {' or '.join(allowed) or kind}, found {text or 'the end'!r}")
        self.tokens.pop(0)
        return text

    def _take(self, symbol: str) -> bool:
        if self.tokens[0] != ("symbol", symbol):
            return False
        self.tokens.pop(0)
        return True

    def _or(self) -> Test:
        tests = [self._and()]
        while self._take("||"):
            tests.append(self._and())
        return lambda document: any(test(document) for test in tests)

    def _and(self) -> Test:
        tests = [self._condition()]
        while self._take("&&"):
            tests.append(self._condition())
        return lambda document: all(test(document) for test in tests)

    def _condition(self) -> Test:
        if self._take("("):
            test = self._or()
            self._next("symbol", ")")
            return test
        path = _path(self._next("selector"))
        if self.tokens[0] == ("word", "NOT"):
            self.tokens.pop(0)
            self._next("word", "EXISTS")
            return lambda document: _at(document, path) is _MISSING
        if self.tokens[0] == ("word", "IS"):
            self.tokens.pop(0)
            wanted = {"NULL": None, "TRUE": True, "FALSE": False}[self._next("word", "NULL", "TRUE", "FALSE")]
            return lambda document: _at(document, path) is wanted
        symbol = self._next("symbol", "=", "!=", *_ORDERINGS)
        test = self._ordering(symbol) if symbol in _ORDERINGS else self._equality(symbol)

        def compare(document: Any) -> bool:
            value = _at(document, path)
            return value is not _MISSING and test(value)

        return compare

    def _ordering(self, symbol: str) -> Test:
        text = self._next("word")
        try:
            limit = float(text)
        except ValueError:
            raise self._error(f"{symbol} needs a number, not {text!r}") from None
        compare = _ORDERINGS[symbol]
        return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and compare(value, limit)

    def _equality(self, symbol: str) -> Test:
        kind, text = self.tokens[0]
        if kind not in ("string", "word", "regex"):
            raise self._error(f"expected a value, found {text or 'the end'!r}")
        self.tokens.pop(0)
        if kind == "regex":
            search = _compile(text[1:-1]).search
            equal: Test = lambda value: search(_as_text(value)) is not None  # noqa: E731
        else:
            literal = _unescape(text[1:-1]) if kind == "string" else text
            wildcard = re.compile(".*".join(map(re.escape, literal.split("*"))), re.DOTALL)
            number = _number(literal) if kind == "word" else None
            equal = lambda value: (  # noqa: E731
                value == number
                if number is not None and isinstance(value, int | float) and not isinstance(value, bool)
                else wildcard.fullmatch(_as_text(value)) is not None
            )
        return equal if symbol == "=" else lambda value: not equal(value)


def _path(selector: str) -> list[str | int]:
    steps = re.findall(r"\.([A-Za-z_@][\w@-]*)|\[(\d+)\]", selector)
    return [name or int(index) for name, index in steps]


def _at(document: Any, path: list[str | int]) -> Any:
    for step in path:
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return _MISSING
    return document


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)


def _compile(regex: str) -> re.Pattern[str]:
    try:
        return re.compile(regex)
    except re.error as error:
        raise UnsupportedPattern(f"cannot read the regular expression %{regex}%: {error}") from None
