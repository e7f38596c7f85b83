r"""Whether two expressions are equal: by exact fractions where they can be, else to many digits.

Variables are given the same random values on both sides; an identity of answers holds at all of them,
and an accidental one at none. They depend on both answers, so that none can be written to agree at them.
No text is evaluated: trees of `expression` are.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, TypeVar

import mpmath

from papo.rewards.expression import Node
from papo.rewards.value_at_point import (
    NO_NUMBERS,
    Point,
    UndefinedError,
    as_mpmath,
    both_exact,
    fold,
    hashed,
    is_real,
    is_zero,
    value,
)

T = TypeVar("T")

_DIGITS = 50
_MAX_RANGE = 2_000
_POINTS = 4
_DECIMAL_PLACES = 6


def equal(left: Node, right: Node) -> bool | None:
    """Returns whether two expressions are equal; None where that cannot be computed.

    A decimal of at least six places agrees with an exact value that rounds to it.
    """
    if (written := dump(left)) == (other := dump(right)):
        return True
    if left.holds("opaque") or right.holds("opaque"):
        return None
    if _is_symbol(left) or _is_symbol(right):
        return False
    structures = ("tuple", "set", "union", "matrix", "ratio")
    if left.head in structures or right.head in structures:
        return _equal_structures(left, right)
    if any(side.holds(head) for side in (left, right) for head in (*structures, "pm", "mp")):
        return None
    left_value, right_value = _literal(left), _literal(right)
    if left_value is not None and right_value is not None:
        return left_value == right_value or _rounds(left, right) or _rounds(right, left)
    names = left.names() | right.names()
    verdict = _agree(
        lambda point: (value(left, point), value(right, point)),
        _salt(written, other) if _free(names) else None,
    )
    if verdict is False and not _free(names):
        return _rounds(left, right) or _rounds(right, left)
    return verdict


def proportional(left: Node, right: Node, *, positive: bool) -> bool | None:
    """Returns whether left = c * right for a number c that is not 0 (or above 0); None: unknown."""
    if left.holds("opaque") or right.holds("opaque"):
        return None
    if not (has_variables(left) and has_variables(right)):
        return None  # any two numbers are proportional: 3 = 4 is not 1 = 2
    first: Any = None
    seen = 0
    salt = _salt(dump(left), dump(right))
    for index in range(3 * _POINTS):
        with mpmath.workdps(_DIGITS):
            try:
                point = Point(index, salt)
                top, bottom = value(left, point), value(right, point)
            except (UndefinedError, ArithmeticError):
                continue
            if point.range > 12:
                continue
            if is_zero(top) or is_zero(bottom):
                if is_zero(top) != is_zero(bottom):
                    return False
                continue
            ratio = fold([top, bottom], lambda a, b: a / b)
            if first is None:
                first = ratio
            size = Fraction(10) ** int(mpmath.log10(abs(as_mpmath(first))) + 2)
            if not _close(first, ratio, size):
                return False
            if not is_real(first) or (positive and mpmath.re(as_mpmath(first)) <= 0):
                return False
            seen += 1
            if seen == _POINTS:
                return True
    return None


def dump(node: Node) -> str:
    """Returns one spelling of a tree: operands of sums and products in one order."""
    if node.head == "num":
        return str(node.value)
    if node.head in ("add", "mul"):
        return f"{node.head}({','.join(sorted(_flat(node, node.head)))})"
    parts = [dump(part) for part in node.parts]
    if node.head == "neg" and node.parts[0].head == "num":
        return str(-(node.parts[0].value or 0))
    if node.head in ("set", "union"):
        parts.sort()
    return f"{node.head}[{node.text}]({','.join(parts)})"


def _flat(node: Node, head: str) -> list[str]:
    if node.head != head:
        return [dump(node)]
    return [item for part in node.parts for item in _flat(part, head)]


def _equal_structures(left: Node, right: Node) -> bool | None:
    if {left.head, right.head} == {"ratio", "div"} or "ratio" in (left.head, right.head):
        return _equal_ratios(left, right)
    if left.head != right.head or left.text != right.text or len(left.parts) != len(right.parts):
        if left.head in ("tuple", "set", "union", "matrix") and right.head in (
            "tuple",
            "set",
            "union",
            "matrix",
        ):
            return False
        whole = {left.head, right.head} & {"add", "mul", "div", "pow", "neg", "opaque"}
        return None if whole and (left.holds("matrix") and right.holds("matrix")) else False
    if left.head == "matrix":
        return all_of(
            False if len(a.parts) != len(b.parts) else all_of(map(equal, a.parts, b.parts))
            for a, b in zip(left.parts, right.parts, strict=True)
        )
    if left.head == "tuple":
        return all_of(map(equal, left.parts, right.parts))
    return matches(left.parts, right.parts, equal)


def all_of(verdicts: Any) -> bool | None:
    """False if one is False, else None if one is None, else True."""
    found = list(verdicts)
    return False if False in found else None if None in found else True


def matches(
    left: Sequence[T], right: Sequence[T], same: Callable[[T, T], bool | None]
) -> bool | None:
    """Whether the members are the same in any order, each one as often."""
    if len(left) != len(right):
        return False
    rest = list(left)
    for wanted in right:
        found = next((item for item in rest if same(item, wanted)), None)
        if found is None:
            return None if any(same(item, wanted) is None for item in rest) else False
        rest.remove(found)
    return True


def _equal_ratios(left: Node, right: Node) -> bool | None:
    lefts, rights = _terms(left), _terms(right)
    if lefts is None or rights is None or len(lefts) != len(rights):
        return False
    is_exact = any(_literal(term) == 0 for term in (*lefts, *rights))
    if "time" in (left.text, right.text) and not (_is_time(left) and _is_time(right)):
        return False
    if is_exact or (_is_time(left) and _is_time(right)):
        return all_of(map(equal, lefts, rights))
    return all_of(
        equal(
            Node("mul", parts=(lefts[0], rights[index])),
            Node("mul", parts=(rights[0], lefts[index])),
        )
        for index in range(1, len(lefts))
    )


def _is_time(node: Node) -> bool:
    """`12:30` may be a time of day, which is not `6:15`, and `3:05` is one; a ratio would be reduced."""
    if node.head != "ratio" or len(node.parts) != 2 or node.text == "time":
        return node.text == "time"
    hours, minutes = (part.value for part in node.parts)
    return (
        hours is not None and minutes is not None
        and hours <= 24 and 10 <= minutes < 60 and {hours.denominator, minutes.denominator} == {1}
    )  # fmt: skip


def _terms(node: Node) -> tuple[Node, ...] | None:
    if node.head == "ratio":
        return node.parts
    if node.head in ("num", "div", "mul", "pow", "fn"):
        return (node, Node("num", value=Fraction(1)))
    return None


def _salt(left: str, right: str) -> str:
    """The same for a pair in either order."""
    return hashed("\0".join(sorted((left, right)))).hex()


def _free(names: frozenset[str]) -> frozenset[str]:
    return names - {r"\pi", "e", "i"}


def has_variables(node: Node) -> bool:
    """Whether the value of a tree changes with a variable."""
    return bool(_free(node.names()))


def _is_symbol(node: Node) -> bool:
    """Whether this is an infinity, the empty set or the like, which equals itself alone."""
    if node.head == "neg":
        return _is_symbol(node.parts[0])
    return node.head == "var" and node.text in NO_NUMBERS


def _literal(node: Node) -> Fraction | None:
    if node.head == "num":
        return node.value
    if node.head == "neg":
        inside = _literal(node.parts[0])
        return None if inside is None else -inside
    return None


def _decimal(node: Node) -> tuple[Fraction, int] | None:
    """Returns a decimal's value and places, if it has at least six places and significant digits."""
    if node.head == "neg":
        inside = _decimal(node.parts[0])
        return None if inside is None else (-inside[0], inside[1])
    if node.head != "num" or "." not in node.text or not node.text.replace(".", "").isdigit():
        return None
    whole, _, places = node.text.partition(".")
    is_long = min(len(places), len((whole + places).lstrip("0"))) >= _DECIMAL_PLACES
    return (Fraction(node.text), len(places)) if is_long else None


def _rounds(decimal: Node, exact: Node) -> bool:
    rounded = _decimal(decimal)
    if rounded is None or _has_decimal(exact) or has_variables(exact):
        return False
    goal, places = rounded
    try:
        with mpmath.workdps(_DIGITS + places):
            found = value(exact, Point(0))
            if isinstance(found, Fraction):
                if _terminates(found):
                    return False
                return abs(found - goal) * 2 <= Fraction(1, 10**places)
            return bool(
                is_real(found)
                and abs(mpmath.re(found) - as_mpmath(goal)) * 2 <= mpmath.mpf(10) ** -places
            )
    except (UndefinedError, ArithmeticError):
        return False


def _terminates(number: Fraction) -> bool:
    bottom = number.denominator
    for prime in (2, 5):
        while bottom % prime == 0:
            bottom //= prime
    return bottom == 1


def _has_decimal(node: Node) -> bool:
    return bool(node.head == "num" and node.text) or any(_has_decimal(part) for part in node.parts)


def _agree(pair: Callable[[Point], tuple[Any, Any]], salt: str | None) -> bool | None:
    """Whether both values are the same at every point; without a salt nothing varies, and one is enough."""
    wanted = 1 if salt is None else _POINTS
    seen = 0
    for index in range(3 * wanted):
        try:
            same = _same_at(pair, index, salt or "")
        except (UndefinedError, ArithmeticError):
            continue
        if not same:
            return False
        seen += 1
        if seen == wanted:
            return True
    return None


def _same_at(pair: Callable[[Point], tuple[Any, Any]], index: int, salt: str) -> bool:
    point = Point(index, salt)
    with mpmath.workdps(_DIGITS):
        left, right = pair(point)
        if both_exact(left, right):
            return bool(left == right)
        if point.range < 12:
            return _close(left, right, Fraction(10) ** int(point.range + 1))
    if point.range > _MAX_RANGE:
        raise UndefinedError("numbers of very different size")
    reach = int(point.range) + 1
    with mpmath.workdps(_DIGITS + 3 * reach):
        left, right = pair(Point(index, salt))
        return (both_exact(left, right) and left == right) or _close(
            left, right, Fraction(10) ** reach
        )


def _close(left: Any, right: Any, scale: Fraction) -> bool:
    if both_exact(left, right):
        return bool(left == right)
    difference = abs(as_mpmath(left) - as_mpmath(right))
    return bool(difference <= as_mpmath(scale) * mpmath.mpf(10) ** (15 - mpmath.mp.dps))
