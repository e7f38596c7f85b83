"""Responses of known error type, written from the annotated facts of a diagram.

`plain` phrasings are what language models commonly write; `unusual` ones were written down after the
rules were finished and are there to see what the rules miss. The readings are the annotation's; one
of them is falsified where the error is one of perception.
"""

import random
import re
from dataclasses import dataclass

from papo.analysis.errors.taxonomy import ErrorCategory

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_LENGTH = re.compile(r"Equals\(LengthOf\(Line\(([A-Z]), ([A-Z])\)\), ([^A-Z]*)\)$")
_ANGLE = re.compile(r"Equals\(MeasureOf\(Angle\(([A-Z]), ([A-Z]), ([A-Z])\)\), ([^A-Z]*)\)$")
_RELATION = re.compile(
    r"(Parallel|Perpendicular)\(Line\(([A-Z]), ?([A-Z])\), ?Line\(([A-Z]), ?([A-Z])\)\)$"
)

PLAIN = {
    "length": [
        "{0} = {v}",
        "$\\overline{{{0}}} = {v}$",
        "The length of {0} is {v}",
        "{0} measures {v}",
        "Side {0} is labeled {v}",
        "\\({0} = {v}\\)",
        "{0} is {v} units",
        "**{0}** = {v}",
    ],
    "angle": [
        "\\angle {0} = {v}^\\circ",
        "$m\\angle {0} = {v}$",
        "∠{0} = {v}°",
        "Angle {0} is {v} degrees",
        "\\(\\angle {0} = {v}^{{\\circ}}\\)",
        "angle {0} measures {v}°",
    ],
    "Parallel": [
        "{0} \\parallel {1}",
        "$\\overline{{{0}}} \\parallel \\overline{{{1}}}$",
        "{0} is parallel to {1}",
        "{0} ∥ {1}",
    ],
    "Perpendicular": [
        "{0} \\perp {1}",
        "{0} is perpendicular to {1}",
        "$\\overline{{{0}}} \\perp \\overline{{{1}}}$",
    ],
}
UNUSUAL = {
    "length": [
        "the segment joining {p} and {q} has a length of {v}",
        "{v} is the length of {0}",
        "| {0} | {v} |",
        "{0} ({v})",
        "|{0}| = {v}",
        "d({p}, {q}) = {v}",
        "{0} = {v} (from the picture)",
        "we can read {0} = {v}",
        "{0} → {v}",
        "length({0}) = {v}",
    ],
    "angle": [
        "the angle at {q} between {q}{p} and {q}{r} is {v}",
        "{v}° for angle {0}",
        "∡{0} = {v}°",
        "\\measuredangle {0} = {v}",
        "angle({0}) = {v}",
        "m(∠{0}) = {v}°",
        "\\widehat{{{0}}} = {v}^\\circ",
    ],
    "Parallel": ["lines {0} and {1} are parallel", "{0} // {1}"],
    "Perpendicular": ["{0} and {1} meet at a right angle", "{0} makes 90° with {1}"],
}


@dataclass(frozen=True)
class Written:
    """A constructed response and what is wrong with it."""

    category: ErrorCategory
    response: str
    answer: str


def readings(facts: list[str]) -> list[tuple[str, tuple[str, ...], str]]:
    """(kind, points, value) of the annotations that the templates can state; each object once."""
    found: dict[tuple[str, frozenset[str]], tuple[str, tuple[str, ...], str]] = {}
    seen_twice = set()
    for form in facts:
        if match := _LENGTH.match(form):
            entry = ("length", (match[1] + match[2],), match[3].strip())
        elif match := _ANGLE.match(form):
            entry = ("angle", (match[1] + match[2] + match[3],), match[4].strip())
        elif match := _RELATION.match(form):
            entry = (match[1], (match[2] + match[3], match[4] + match[5]), "")
        else:
            continue
        key = (entry[0], frozenset("".join(entry[1])))
        if key in found:
            seen_twice.add(key)
        found[key] = entry
    return [entry for key, entry in found.items() if key not in seen_twice]


def say(rng: random.Random, entry: tuple[str, tuple[str, ...], str], phrasings: dict) -> str:
    kind, points, value = entry
    letters = dict(zip("pqr", points[0], strict=False))
    return rng.choice(phrasings[kind]).format(*points, v=value, **letters)


def misread(rng: random.Random, entry, others):
    """The same annotation misread: another number, a neighbour's value, a changed sign, a turn."""
    kind, points, value = entry
    if kind == "Parallel":
        return ("Perpendicular", points, "")
    if kind == "Perpendicular":
        return ("Parallel", points, "")
    neighbours = [
        v
        for k, _, v in others
        if k == kind and v.rstrip("0") != value.rstrip("0") and v.isdigit() == value.isdigit()
    ]
    if neighbours and rng.random() < 0.4:
        return (kind, points, rng.choice(neighbours))
    numbers = list(_NUMBER.finditer(value))
    if numbers and rng.random() < 0.7:
        number = rng.choice(numbers)
        changed = f"{float(number.group()) + rng.choice([1, 2, 3, 10]):g}"
        return (kind, points, value[: number.start()] + changed + value[number.end() :])
    if "+" in value or "-" in value[1:]:
        return (kind, points, value[0] + value[1:].translate(str.maketrans("+-", "-+")))
    return (kind, points, f"{rng.randint(2, 9)}{value}" if not value[0].isdigit() else value + "0")


def write(
    rng: random.Random,
    facts: list[str],
    category: ErrorCategory,
    *,
    reference: str,
    phrasings: dict,
) -> Written | None:
    """A response with one error of this category; None where the facts offer nothing to state."""
    entries = readings(facts)
    valued = [entry for entry in entries if entry[2]]
    if len(entries) < 2 or not valued:
        return None
    rng.shuffle(entries)
    stated = entries[:4]
    wrong_answer = "1" + reference if reference[0].isdigit() else "17"
    answer = wrong_answer
    if category is ErrorCategory.PERCEPTION:
        victim = rng.randrange(len(stated))
        stated[victim] = misread(rng, stated[victim], valued)
    opening = rng.choice(["", "From the figure: ", "In the diagram, ", "Given: ", "We have ", "- "])
    joint = rng.choice([", ", ".\n", "\n- ", " and ", "; "])
    text = "<think>" + opening + joint.join(say(rng, entry, phrasings) for entry in stated) + ".\n"
    a, b = rng.randint(2, 60), rng.randint(2, 60)
    total = a + b + (rng.choice([-1, 1, 10]) if category is ErrorCategory.CALCULATION else 0)
    steps = [
        f"Adding, {a} + {b} = {total}.",
        f"So {a}^\\circ + {b}^\\circ = {total}^\\circ.",
        f"x = {a} + {b} = {total}",
        f"\\[ {a} + {b} = {total} \\]",
    ]
    fillers = [
        "Let x be the unknown length.",
        "The angles of a triangle add up to 180 degrees.",
        "Using the Pythagorean theorem, we solve for the unknown side.",
        f"Therefore, {valued[0][1][0]} = {rng.randint(3, 90)}."
        if len(valued[0][1][0]) == 2
        else "",
        "2x + 3 = 15 so x = 6.",
    ]
    text += rng.choice(fillers) + "\n" + rng.choice(steps) + "\n"
    if category is ErrorCategory.REASONING:
        text += rng.choice(wrong_arguments(rng, valued)) + "\n"
    if category is ErrorCategory.INCONSISTENCY:
        text += f"So the result is x = {reference}.\n"
    return Written(category, text + f"</think>\\boxed{{{answer}}}", answer)


def wrong_arguments(rng: random.Random, valued) -> list[str]:
    """Wrong rules applied to right readings; some state, wrongly, what the diagram refutes."""
    kind, points, _ = rng.choice(valued)
    name = points[0] if kind == "length" else f"\\angle {points[0]}"
    same_kind = [one for one in valued if one[0] == kind and one[1] != points]
    arguments = [
        "The diagonals of a parallelogram are equal, so both halves are the same.",
        f"By similarity, {name} is twice as long, hence {name} = {rng.randint(91, 99)}.",
        f"Since the triangle is isosceles, {name} = {rng.randint(91, 99)}.",
        "The sum of the angles is 360 degrees, so 360 - 120 = 240.",
    ]
    if same_kind:
        other = same_kind[0][1][0] if kind == "length" else f"\\angle {same_kind[0][1][0]}"
        arguments += [
            f"Since the triangles are congruent, {name} = {other}.",
            f"{name} = {other} by symmetry.",
        ]
    return arguments
