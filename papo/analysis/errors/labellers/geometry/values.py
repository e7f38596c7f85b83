r"""Numbers and small expressions as people write them: 7\sqrt{2}, \frac{4}{7}, 2x - 14, 12.5.

Read by a hand-written parser into plain arithmetic: text of a model is never evaluated as code. Two
expressions are the same where they agree at fixed values of their letters.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

ALL_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz")

MAX_VALUE_CHARACTERS = 80
"""A longer expression is not a reading of a picture; bounds the work per statement."""

_TOKEN = re.compile(
    r"""
    (?P<number>[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,9}(?:\.[0-9]{1,9})?|\.[0-9]{1,9})
  | (?P<command>\\(?:d|t)?frac|\\sqrt|√)
  | (?P<operator>\\cdot|\\times|[-+*/^−×·÷])
  | (?P<letter>[a-z](?![A-Za-z]))
  | (?P<open>\\left\(|[({])
  | (?P<close>\\right\)|[)}])
    """,
    re.VERBOSE,
)
_SPACE = re.compile(r"(?:[^\S\n]|\\[,;! ]|~)*")
_DECIMALS = re.compile(r"\.([0-9]+)$")
_SIGNS = {"−": "-", "×": "*", "·": "*", "\\cdot": "*", "\\times": "*", "÷": "/"}

# Where expressions are compared; each letter has its own value at each point.
_POINTS = (0.7318, 1.9183, 3.3719)
_MAX_DEPTH = 8
_LARGEST = 1e12


@dataclass(frozen=True, slots=True)
class Value:
    """A number or an expression in letters.

    Attributes:
        text: as it was written.
        letters: the letters in it; none in a number.
        samples: its value at `_POINTS`, the same number three times where it has no letter.
        is_computed: whether it holds arithmetic on numbers (3 + 5, 2 * 4): then it was worked out,
            not read.
    """

    text: str
    letters: frozenset[str]
    samples: tuple[float, float, float]
    is_computed: bool

    @property
    def number(self) -> float | None:
        """The number it is, or None where it has letters."""
        return None if self.letters else self.samples[0]

    def equals(self, other: "Value", *, relative_tolerance: float = 1e-6) -> bool:
        """Whether both are the same number or the same expression."""
        return all(
            math.isclose(a, b, rel_tol=relative_tolerance, abs_tol=1e-9)
            for a, b in zip(self.samples, other.samples, strict=True)
        )

    def rounds_to(self, other: "Value") -> bool:
        """Whether `other` is this number rounded as it is written (9.9 for 9.8995)."""
        if self.number is None or other.number is None:
            return self.equals(other)
        if self.equals(other):
            return True
        decimals = _DECIMALS.search(other.text)
        if decimals is None:
            return False
        half_a_digit = 0.5 * 10.0 ** -len(decimals[1])
        return abs(self.number - other.number) <= 1.01 * half_a_digit


def read_value(
    text: str, start: int = 0, *, letters: frozenset[str] = ALL_LETTERS
) -> tuple[Value, int] | None:
    """Reads the longest expression at `start`.

    Args:
        text: hostile or not.
        start: where to begin; spaces are skipped.
        letters: what may stand for a number; another letter ends the expression.

    Returns:
        The value and where it ends, or None where there is none. "5 + " ends before the plus.
    """
    reader = _Reader(text, start, letters)
    try:
        terms = reader.sum()
    except (_NoValueError, OverflowError, ZeroDivisionError):
        return None
    if any(not math.isfinite(sample) or abs(sample) > _LARGEST for sample in terms):
        return None
    value = Value(
        text=text[start : reader.end].strip(),
        letters=frozenset(reader.letters),
        samples=terms,
        is_computed=reader.is_computed,
    )
    return value, reader.end


class _NoValueError(Exception):
    pass


_Samples = tuple[float, float, float]


class _Reader:
    """Recursive descent over at most `MAX_VALUE_CHARACTERS` characters, at most 8 brackets deep."""

    def __init__(self, text: str, start: int, allowed: frozenset[str]) -> None:
        self.text = text
        self.allowed = allowed
        self.limit = min(len(text), start + MAX_VALUE_CHARACTERS)
        self.end = start  # after the last token that belongs to the value
        self.letters: set[str] = set()
        self.is_computed = False
        self.depth = 0

    def sum(self) -> _Samples:
        total = self._signed(self.product)
        while (sign := self._peek("operator")) in ("+", "-"):
            before = self._mark()
            self._take()
            try:
                term = self.product()
            except _NoValueError:
                self._back(before)
                break
            self.is_computed |= not self.letters
            total = _combine(total, term, sign)
        return total

    def product(self) -> _Samples:
        result = self.power()
        while True:
            before = self._mark()
            sign, opens = self._peek("operator"), self._peek("open") is not None
            if sign in ("*", "/"):
                self._take()
            elif sign is not None or not self._starts_factor():
                return result
            try:
                factor = self.power()
            except _NoValueError:
                self._back(before)
                return result
            # 4/7 is how a fraction is written; 2 * 4 and 2(4) are worked out.
            self.is_computed |= (sign == "*" or opens) and not self.letters
            result = _combine(result, factor, sign or "*")

    def power(self) -> _Samples:
        base = self._atom()
        if self._peek("operator") != "^":
            return base
        before = self._mark()
        self._take()
        try:
            exponent = self._signed(self._atom)[0]
        except _NoValueError:
            self._back(before)
            return base
        if abs(exponent) > 6:
            raise _NoValueError
        self.is_computed |= not self.letters
        first, second, third = (_power(value, exponent) for value in base)
        return first, second, third

    def _atom(self) -> _Samples:
        kind, written = self._take()
        if kind == "number":
            value = float(written.replace(",", ""))
            return value, value, value
        if kind == "letter":
            self.letters.add(written)
            first, second, third = (point + 0.37 * (ord(written) - 97) for point in _POINTS)
            return first, second, third
        if kind == "open":
            return self._up_to_close()
        if kind == "command":
            return self._command(written)
        raise _NoValueError

    def _command(self, written: str) -> _Samples:
        if written.endswith("frac"):
            return _combine(self._atom(), self._atom(), "/")
        first, second, third = (_power(value, 0.5) for value in self._atom())
        return first, second, third

    def _up_to_close(self) -> _Samples:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise _NoValueError
        inner = self.sum()
        self.depth -= 1
        if self._take()[0] != "close":
            raise _NoValueError
        return inner

    def _signed(self, read: Callable[[], _Samples]) -> _Samples:
        if self._peek("operator") not in ("-", "+"):
            return read()
        sign = -1.0 if self._take()[1] == "-" else 1.0
        first, second, third = (sign * value for value in read())
        return first, second, third

    def _match(self) -> re.Match[str] | None:
        start = _SPACE.match(self.text, self.end, self.limit).end()  # type: ignore[union-attr]
        match = _TOKEN.match(self.text, start, self.limit)
        if match is not None and match.lastgroup == "letter" and match.group() not in self.allowed:
            return None
        return match

    def _peek(self, kind: str) -> str | None:
        match = self._match()
        if match is None or match.lastgroup != kind:
            return None
        return _SIGNS.get(match.group(), match.group())

    def _starts_factor(self) -> bool:
        """Whether a factor follows without a sign: 2x, 7\\sqrt{2}, 3(x + 1); never two numbers."""
        match = self._match()
        return match is not None and match.lastgroup in ("letter", "command", "open")

    def _take(self) -> tuple[str, str]:
        match = self._match()
        if match is None:
            raise _NoValueError
        self.end = match.end()
        return str(match.lastgroup), _SIGNS.get(match.group(), match.group())

    def _mark(self) -> tuple[int, set[str], bool, int]:
        return self.end, set(self.letters), self.is_computed, self.depth

    def _back(self, mark: tuple[int, set[str], bool, int]) -> None:
        self.end, self.letters, self.is_computed, self.depth = mark


def _combine(left: _Samples, right: _Samples, sign: str) -> _Samples:
    def one(a: float, b: float) -> float:
        match sign:
            case "+":
                return a + b
            case "-":
                return a - b
            case "*":
                return a * b
        return a / b

    first, second, third = (one(a, b) for a, b in zip(left, right, strict=True))
    return first, second, third


def _power(base: float, exponent: float) -> float:
    if base < 0 and exponent != int(exponent):
        raise _NoValueError
    return float(base**exponent)
