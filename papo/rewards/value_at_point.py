"""The value of an expression at a point: a fraction where it is exact, else a number of many digits.

No text is evaluated: trees of `expression` are. What no answer needs has no value: numbers of more digits than one writes.
"""

import hashlib
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath

from papo.rewards.expression import Node

_MAX_BITS = 20_000
_MAX_FACTORIAL = 1_000
_MAX_DEGREE = 100
NO_NUMBERS = frozenset({r"\infty", r"\emptyset", r"\ldots"})
_OF_AN_ANGLE: dict[str, Callable[[Any], Any]] = {
    **{"sin": mpmath.sin, "cos": mpmath.cos, "tan": mpmath.tan},
    **{"cot": mpmath.cot, "sec": mpmath.sec, "csc": mpmath.csc},
    **{"arcsin": mpmath.asin, "arccos": mpmath.acos, "arctan": mpmath.atan, "arccot": mpmath.acot},
    **{"sinh": mpmath.sinh, "cosh": mpmath.cosh, "tanh": mpmath.tanh},
}


class UndefinedError(ValueError):
    """The expression has no value here, or none of a size that an answer has."""


class Point:
    """Values for variables by their names: the same at every call, another at every index.

    Signs depend on the name alone: whether `√x√y` is `√(xy)` must not on what stands beside it.
    """

    def __init__(self, index: int, salt: str = "") -> None:
        self.index = index
        self.salt = salt
        self.range = 0.0

    def __getitem__(self, name: str) -> Fraction:
        number = int.from_bytes(hashed(f"{self.index} {name}{self.salt}")[:3], "big")
        size = Fraction(number % 9_973 + 2_000, 4_001 if self.index % 4 < 2 else 173)
        return -size if self.index % 2 and hashed(f"{self.index} {name}")[3] % 2 else size


def hashed(text: str) -> bytes:
    """Returns 16 bytes that only the text decides."""
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).digest()


def value(node: Node, point: Point) -> Any:
    """Returns the value at a point: a Fraction where it is exact, else an mpmath number.

    Raises:
        UndefinedError: there is none, or it is larger than any answer.
    """
    result = _value(node, point)
    if isinstance(result, Fraction):
        if result.numerator.bit_length() + result.denominator.bit_length() > _MAX_BITS:
            raise UndefinedError("a number of too many digits")
        size = result.numerator.bit_length() - result.denominator.bit_length() if result else 0
    else:
        if not (mpmath.isfinite(result)):
            raise UndefinedError("no finite number")
        size = int(mpmath.mag(result)) if result != 0 else 0
    point.range = max(point.range, abs(size) * 0.30103)
    if abs(size) > _MAX_BITS:
        raise UndefinedError("a number of too many digits")
    return result


def _value(node: Node, point: Point) -> Any:
    if node.head == "num":
        assert node.value is not None
        return node.value
    if node.head == "var":
        if node.text == r"\pi":
            return +mpmath.pi
        if node.text == "e":
            return +mpmath.e
        if node.text in NO_NUMBERS:
            raise UndefinedError(f"{node.text} is no number")
        return mpmath.mpc(0, 1) if node.text == "i" else point[node.text]
    parts = [value(part, point) for part in node.parts]
    match node.head:
        case "add":
            return fold(parts, lambda a, b: a + b)
        case "mul":
            return fold(parts, lambda a, b: a * b)
        case "neg":
            return -parts[0]
        case "div":
            if is_zero(parts[1]):
                raise UndefinedError("division by zero")
            return fold(parts, lambda a, b: a / b)
        case "pow":
            return _power(parts[0], parts[1])
        case "degree":
            return as_mpmath(parts[0]) * mpmath.pi / 180
        case "fn":
            return _function(node.text, parts)
    raise UndefinedError(f"{node.head} has no value")


def fold(parts: list[Any], operation: Callable[[Any, Any], Any]) -> Any:
    """Returns the parts put together: exactly where all of them are."""
    if not all(isinstance(part, Fraction) for part in parts):
        parts = [as_mpmath(part) for part in parts]
    result = parts[0]
    for part in parts[1:]:
        result = operation(result, part)
    return result


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        power = exponent.numerator
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits * abs(power) <= _MAX_BITS:
            if base == 0 and power <= 0:
                raise UndefinedError("zero to a power below one")
            return base**power
    if is_zero(base):
        if is_real(exponent) and mpmath.re(as_mpmath(exponent)) > 0:
            return Fraction(0)
        raise UndefinedError("zero to a power below one")
    is_root = isinstance(exponent, Fraction) and 1 < exponent.denominator <= _MAX_DEGREE
    if is_root and abs(exponent.numerator) <= _MAX_DEGREE:
        return _root(base, exponent)
    number, power = as_mpmath(base), as_mpmath(exponent)
    if abs(power) * abs(mpmath.log(number)) > _MAX_BITS:
        raise UndefinedError("a number of too many digits")
    return number**power


def _root(base: Any, exponent: Fraction) -> Any:
    """Odd roots of negative numbers are real, as schools have it; exact roots are exact."""
    degree = exponent.denominator
    if isinstance(base, Fraction) and base < 0 and degree % 2:
        return _power(-_root(-base, Fraction(1, degree)), Fraction(exponent.numerator))
    if isinstance(base, Fraction) and base > 0:
        top, bottom = _whole_root(base.numerator, degree), _whole_root(base.denominator, degree)
        if top and bottom:
            return Fraction(top, bottom) ** exponent.numerator
    number = as_mpmath(base)
    if not isinstance(base, Fraction) and is_real(base) and mpmath.re(base) < 0 and degree % 2:
        return (-(mpmath.re(-base) ** (mpmath.mpf(1) / degree))) ** exponent.numerator
    return number ** (mpmath.mpf(exponent.numerator) / degree)


def _whole_root(number: int, degree: int) -> int | None:
    if number.bit_length() > 2_000:
        return None
    found = int(mpmath.nint(mpmath.root(mpmath.mpf(number), degree)))
    return found if found**degree == number else None


def _function(name: str, parts: list[Any]) -> Any:
    match name:
        case "root":
            if not (isinstance(parts[1], Fraction) and parts[1] > 0):
                return _power(parts[0], 1 / as_mpmath(parts[1]))
            if is_zero(parts[0]):
                return Fraction(0)
            return _power(parts[0], 1 / parts[1])
        case "abs":
            return abs(parts[0])
        case "floor" | "ceil":
            if not is_real(parts[0]):
                raise UndefinedError("no real number")
            if isinstance(parts[0], Fraction):
                up = -(-parts[0].numerator // parts[0].denominator)
                return Fraction(
                    parts[0].numerator // parts[0].denominator if name == "floor" else up
                )
            return Fraction(
                int((mpmath.floor if name == "floor" else mpmath.ceil)(mpmath.re(parts[0])))
            )
        case "factorial":
            return _factorial(parts[0])
        case "binom":
            top, bottom = parts
            if not (
                both_exact(top, bottom)
                and bottom.denominator == 1
                and 0 <= bottom <= _MAX_FACTORIAL
            ):
                return mpmath.binomial(as_mpmath(top), as_mpmath(bottom))
            result = Fraction(1)
            for step in range(int(bottom)):
                result *= (top - step) / (step + 1)
            return result
        case "exp":
            return _power(+mpmath.e, parts[0])
        case "ln" | "log" | "lg":
            return _logarithm(name, parts)
    if len(parts) > 1:
        raise UndefinedError(f"an index of {name}")
    angle = as_mpmath(parts[0])
    if abs(angle) > 10**6:
        raise UndefinedError("a large argument")
    if name not in _OF_AN_ANGLE:
        raise UndefinedError(name)
    return _OF_AN_ANGLE[name](angle)


def _factorial(number: Any) -> Any:
    if isinstance(number, Fraction) and number.denominator == 1:
        if not 0 <= number <= _MAX_FACTORIAL:
            raise UndefinedError("a factorial of too many digits")
        result = 1
        for factor in range(2, int(number) + 1):
            result *= factor
        return Fraction(result)
    if abs(number) > _MAX_FACTORIAL:
        raise UndefinedError("a factorial of too many digits")
    return mpmath.factorial(as_mpmath(number))


def _logarithm(name: str, parts: list[Any]) -> Any:
    if is_zero(parts[0]):
        raise UndefinedError("a logarithm of zero")
    result = mpmath.log(as_mpmath(parts[0]))
    if len(parts) == 1 and name == "ln":
        return result
    base = mpmath.log(as_mpmath(parts[1])) if len(parts) > 1 else mpmath.log(10)
    if is_zero(base):
        raise UndefinedError("a logarithm to the base one")
    return result / base


def is_zero(number: Any) -> bool:
    """Returns whether it is 0, but for the last 15 of the digits in use."""
    if isinstance(number, Fraction):
        return number == 0
    return bool(abs(number) < mpmath.mpf(10) ** (15 - mpmath.mp.dps))


def as_mpmath(number: Any) -> Any:
    """Returns the number of mpmath, in the digits in use."""
    if isinstance(number, Fraction):
        return mpmath.mpf(number.numerator) / number.denominator
    return number


def is_real(number: Any) -> bool:
    """Returns whether it has no imaginary part, but for the last 10 of the digits in use."""
    return isinstance(number, Fraction) or bool(
        abs(mpmath.im(number)) <= abs(number) * mpmath.mpf(10) ** (10 - mpmath.mp.dps)
    )


def both_exact(left: Any, right: Any) -> bool:
    """Returns whether both are fractions."""
    return isinstance(left, Fraction) and isinstance(right, Fraction)
