r"""Arithmetic in a response that does not hold, and a final answer that is not the one derived.

Only whole equations between numbers are checked (`3 + 5 = 9`, `\frac{12}{4} = 4`); an equation with
a letter, a unit or a function in it is passed over.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from papo.analysis.errors.labellers.geometry.statements import blank_out_marks
from papo.analysis.errors.labellers.geometry.values import Value, read_value

MAX_EQUATIONS = 500
"""Beyond so many, a response is not read further."""

# Where the side of an equation can begin, and with what.
_BEGIN = re.compile(
    r"(?:^|[=≈:;\n$]|,(?![0-9])|\\approx|\\\(|\\\[|\b(?:[Ii]s|[Gg]et|[Gg]ives|[Hh]ave|[Ss]o|[Tt]hen|[Aa]re)\s)"
    r"(?=[ \t]{0,12}[0-9(\\√.-])",
    re.MULTILINE,
)
_EQUALS = re.compile(r"\s{0,12}(?P<sign>=|\\approx|≈)")
_GOES_ON = re.compile(
    r"[^\S\n]{0,12}(?:[-+*/^−×·÷:!%]|\\%|\\[a-zA-Z]|[({√∠])|[A-Za-z]|\s{0,1}[a-z](?![a-z])|\s{0,2}[A-Z]"
)
_CLOSING_MATHS = re.compile(r"\s{0,3}(?:\\\)|\\\]|\\,|\\ )")
_BOX = re.compile(r"\\(?:boxed|fbox)\b")
_ANY_EQUALS = re.compile(r"=|≈|\\approx")


@dataclass(frozen=True, slots=True)
class Slip:
    """An equation that does not hold: what it says, and where it stands."""

    text: str
    start: int
    end: int


def arithmetic_slips(text: str) -> Iterator[Slip]:
    """Yields the equations between numbers that do not hold, in their order.

    A side is taken as rounded where it is written with decimals or after an approximately-equal sign.
    """
    text = blank_out_marks(text)
    for number, begin in enumerate(_BEGIN.finditer(text)):
        if number >= MAX_EQUATIONS:
            return
        if (left := read_value(text, begin.end())) is None or left[0].number is None:
            continue
        equals = _EQUALS.match(text, left[1])
        if equals is None or (right := read_value(text, equals.end())) is None:
            continue
        # "4 + 3 = 7 + 1 = 8" runs two steps together, which is bad style and no slip.
        if right[0].number is None or right[0].is_computed or _goes_on(text, right[1]):
            continue
        if not (left[0].is_computed or "/" in left[0].text or "frac" in left[0].text):
            continue
        if not _holds(left[0], right[0]):
            yield Slip(text[begin.end() : right[1]].strip(), begin.end(), right[1])


def contradicts_own_answer(text: str, *, reference: str, answer: str) -> str | None:
    """Returns the last value before the box where it is the reference and the box is not.

    Then the steps arrived at the right answer and the response ended with another one. None
    otherwise, also where reference or answer are not numbers.
    """
    right, boxed = read_value(reference), read_value(answer)
    if right is None or boxed is None or boxed[0].equals(right[0], relative_tolerance=1e-3):
        return None
    if reference[right[1] :].strip() or right[0].number is None:
        return None
    boxes = [match.start() for match in _BOX.finditer(text)]
    before = blank_out_marks(text[: boxes[-1]] if boxes else text)
    # The last equation that ends in a number; what stands in the box is not looked at.
    for equals in reversed(list(_ANY_EQUALS.finditer(before))[-5:]):
        if (last := read_value(before, equals.end())) and not _goes_on(before, last[1]):
            same = last[0].number is not None and right[0].rounds_to(last[0])
            return last[0].text if same else None
    return None


def _goes_on(text: str, end: int) -> bool:
    """Whether the value at `end` is only the beginning of what stands there."""
    return _GOES_ON.match(text, end) is not None and _CLOSING_MATHS.match(text, end) is None


def _holds(left: Value, right: Value) -> bool:
    if left.equals(right, relative_tolerance=1e-3) or left.rounds_to(right):
        return True
    a, b = left.samples[0], right.samples[0]
    if all(abs(side - round(side)) < 1e-9 for side in (a, b)) and "." not in left.text:
        return False
    # Rounded intermediate values are carried along, and whole numbers are rounded to without a word.
    return abs(a - b) <= 0.01 * max(abs(a), abs(b)) or abs(a - b) <= 0.5
