"""Keeps text that a model wrote from being run as Python.

sympy's `parse_expr` (and through it `sympify` and mathruler) turns text into Python code and calls
`eval` on it. mathruler's only fence is a count of distinct letters, which strings without letters
pass. `install` replaces that one `eval` by a check of the syntax tree: numbers, symbols, arithmetic
and a few named functions of them; no attribute, no string outside a symbol's name, no unknown name.
Numbers too large to ever be an answer (`9**9**9`, `99999999!`) are refused before they are computed.
"""

import ast
import math
import re
from types import CodeType
from typing import Any

from sympy.parsing import sympy_parser

_CONSTRUCTORS = frozenset({"Symbol", "Integer", "Float", "Rational", "Function"})
_FUNCTIONS = frozenset(
    {"Abs", "Add", "Mul", "Pow", "acos", "asin", "atan", "cbrt", "ceiling", "cos", "cosh", "cot"}
    | {"csc", "exp", "factorial", "floor", "ln", "log", "root", "sec", "sin", "sinh", "sqrt"}
    | {"tan", "tanh"}
)
_CONSTANTS = frozenset({"E", "I", "oo", "pi"})
_ALLOWED_NAMES = _CONSTRUCTORS | _FUNCTIONS | _CONSTANTS

_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.UAdd, ast.USub)
_QUOTED = re.compile(r"[\w.+\-]{1,400}")

_MAX_BITS = 20_000
_MAX_FACTORIAL = 1_000

_original_eval = sympy_parser.eval_expr


class RefusedExpressionError(ValueError):
    """The text is not plain arithmetic, or its value is too large to be an answer."""


def install() -> None:
    """Makes every `parse_expr` of this process check what it is about to evaluate."""
    sympy_parser.eval_expr = _checked_eval


def _checked_eval(code: str | CodeType, local_dict: Any, global_dict: Any) -> Any:
    if isinstance(code, str):
        tree = ast.parse(code.strip(), mode="eval")
        _bits(tree.body)
    # Compiled code is what parse_expr(evaluate=False) passes: names and attributes are in co_names.
    elif not _ALLOWED_NAMES.issuperset(code.co_names):
        raise RefusedExpressionError(f"names {sorted(set(code.co_names) - _ALLOWED_NAMES)}")
    return _original_eval(code, local_dict, global_dict)


def _bits(node: ast.AST) -> float:
    """Returns an upper estimate of log2 |value|, after checking that the node may be evaluated."""
    bits = _unchecked_bits(node)
    if bits > _MAX_BITS:
        raise RefusedExpressionError(f"a number of more than {_MAX_BITS} bits")
    return bits


def _unchecked_bits(node: ast.AST) -> float:
    match node:
        case ast.Constant(value=bool()):
            return 1.0
        case ast.Constant(value=int() as number):
            return float(number.bit_length())
        case ast.Constant(value=float() as number):
            return max(0.0, math.log2(abs(number))) if math.isfinite(number) and number else 1.0
        case ast.Name(id=name) if name in _CONSTANTS:
            return 2.0
        case ast.Tuple(elts=elements):
            return max((_bits(element) for element in elements), default=0.0)
        case ast.UnaryOp(op=op, operand=operand) if isinstance(op, _OPERATORS):
            return _bits(operand)
        case ast.BinOp(op=op, left=left, right=right) if isinstance(op, _OPERATORS):
            if isinstance(op, ast.Pow):
                return _power_bits(_bits(left), _bits(right))
            if isinstance(op, ast.Mult | ast.Div):
                return _bits(left) + _bits(right)
            return max(_bits(left), _bits(right)) + 1
        case ast.Call(func=ast.Name(id=name), args=[*arguments], keywords=[]):
            return _call_bits(name, arguments)
        # Function('f')(x): how sympy writes an unknown function
        case ast.Call(
            func=ast.Call(func=ast.Name(id="Function"), args=[ast.Constant(value=str() as name)]),
            args=[*arguments],
            keywords=[],
        ) if _QUOTED.fullmatch(name):
            return sum(_bits(argument) for argument in arguments)
    raise RefusedExpressionError(f"{type(node).__name__} is not arithmetic")


def _call_bits(name: str, arguments: list[ast.expr]) -> float:
    if name in _CONSTRUCTORS:
        return sum(_quoted_or_number_bits(argument) for argument in arguments)
    if name not in _FUNCTIONS:
        raise RefusedExpressionError(f"function {name!r}")
    bits = [_bits(argument) for argument in arguments]
    if name == "factorial":
        return _factorial_bits(sum(bits))
    if name == "exp":
        return _power_bits(2.0, sum(bits))
    if name == "Pow" and len(bits) == 2:
        return _power_bits(*bits)
    return sum(bits) + 1


def _quoted_or_number_bits(argument: ast.expr) -> float:
    match argument:
        case ast.Constant(value=str() as quoted):
            if not _QUOTED.fullmatch(quoted):
                raise RefusedExpressionError("a string that is neither a name nor a number")
            _, _, exponent = quoted.lower().partition("e")
            if exponent.lstrip("+-").isdigit() and len(exponent) > 5:
                raise RefusedExpressionError("an exponent of more than 4 digits")
            # log2(10) < 4 bits per digit, and ten to the power of the exponent
            power = 4.0 * int(exponent) if exponent.lstrip("+-").isdigit() else 0.0
            return 4.0 * len(quoted) + abs(power)
    return _bits(argument)


def _power_bits(base: float, exponent: float) -> float:
    return math.inf if exponent > 16 else max(base, 1.0) * 2.0**exponent


def _factorial_bits(argument: float) -> float:
    if 2.0 ** min(argument, 64.0) > 2 * _MAX_FACTORIAL:
        return math.inf
    return argument * 2.0**argument


_DIGITS_FACTORIAL = re.compile(r"\d{4,}\s*[)}\]]*\s*!|!\s*[)}\]]*\s*!")
_POWER = re.compile(r"\^|\*\*")
_LONG_EXPONENT = re.compile(r"(?:\^|\*\*)\s*[{(]*\s*[+-]?\s*\d{5,}")
_LONG_BINOMIAL = re.compile(r"\\[dt]?binom.{0,8}?\d{5,}", re.DOTALL)
_TOWER = re.compile(r"(?:\^|\*\*)\s*[{(\s+\-]*\d+\s*(?:\^|\*\*)")
_MAX_POWERS = 12
_MAX_DEPTH = 30


def is_unreasonable(text: str) -> bool:
    r"""True if the text nests deeper or writes larger numbers than anybody means as an answer.

    Spots factorials of four digits, power towers, exponents of five digits, huge binomials and
    brackets 31 deep, for a parser that computes without asking (latex2sympy) and takes seconds per
    ten levels. What it misses, the deadline catches.
    """
    return bool(
        _DIGITS_FACTORIAL.search(text)
        or _LONG_EXPONENT.search(text)
        or _TOWER.search(text)
        or _LONG_BINOMIAL.search(text)
        or len(_POWER.findall(text)) > _MAX_POWERS
        or _depth(text) > _MAX_DEPTH
    )


def _depth(text: str) -> int:
    depth = deepest = 0
    for character in text:
        if character in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in ")]}":
            depth -= 1
    return deepest
