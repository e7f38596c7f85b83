"""The combined grader against expressions drawn from a grammar, and against real answers.

Whatever is only spelled otherwise must be accepted; whatever has another value must earn nothing.
The grammar knows the value of what it writes: it is built from exact numbers here, not by the grader.
A grading process is asked, as in training: it is the real path, and the type checks of the suite, which
take five times as long as the grading, are not there (`test_graders.py` grades with them).
"""

import json
import math
import os
import random
import re
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from papo.rewards.grading_pool import Grading, GradingPool, Verdict

GOLDEN = Path(__file__).parents[1] / "golden"
# Every n-th of the real answers gets mutants: 1 asks about all of them.
EVERY = int(os.environ.get("PAPO_GRADER_MUTANTS_EVERY", "4"))
POOL = GradingPool(num_workers=1, deadline_seconds=30.0)
SETTINGS = settings(max_examples=60, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def the_pool_ends():
    yield
    POOL.close()


def accepted(pairs):
    """Which pairs of answer and reference are paid; a grading without end is an error, not a refusal."""
    verdicts = POOL.grade([Grading("combined", answer, reference) for answer, reference in pairs])
    assert set(verdicts) <= {Verdict.CORRECT, Verdict.WRONG}
    return [verdict is Verdict.CORRECT for verdict in verdicts]


def combined(answer, reference):
    return accepted([(answer, reference)])[0]


# --- a grammar of values and their spellings ------------------------------------------------------
# A tree is (spelling, value at x = 3/7, y = 11/13, n = 5); no grader code has a part in it.

AT = {"x": Fraction(3, 7), "y": Fraction(11, 13), "a": Fraction(5, 17), "b": Fraction(19, 23)}


def _number(value):
    return str(value), Fraction(value)


def _fraction(top, bottom):
    return rf"\frac{{{top[0]}}}{{{bottom[0]}}}", top[1] / bottom[1]


def _product(left, right):
    return rf"\left({left[0]}\right)\left({right[0]}\right)", left[1] * right[1]


def _power(base, exponent):
    return rf"\left({base[0]}\right)^{{{exponent}}}", base[1] ** exponent


def _sum(left, right):
    return f"{left[0]}+{right[0]}", left[1] + right[1]


leaves = st.one_of(
    st.integers(0, 30).map(_number), st.sampled_from(sorted(AT)).map(lambda name: (name, AT[name]))
)


def _grow(children):
    nonzero = children.filter(lambda tree: tree[1] != 0)
    return st.one_of(
        st.builds(_sum, children, children),
        st.builds(_product, children, children),
        st.builds(_fraction, children, nonzero),
        st.builds(_power, nonzero, st.integers(2, 4)),
    )


trees = st.recursive(leaves, _grow, max_leaves=6)

RESPELLINGS = {
    "as it is": lambda text: text,
    "spaces": lambda text: text.replace("{", "{ ").replace("+", r" +\, "),
    "large fractions": lambda text: text.replace(r"\frac", r"\dfrac"),
    "small fractions": lambda text: text.replace(r"\frac", r"\tfrac"),
    "without left and right": lambda text: text.replace(r"\left", "").replace(r"\right", ""),
    "boxed": lambda text: rf"\boxed{{{text}}}",
    "in dollars": lambda text: f"${text}$",
    "in text": lambda text: rf"\displaystyle {{{text}}}",
    "full width": lambda text: re.sub(r"[0-9+()]", lambda m: chr(ord(m[0]) + 0xFEE0), text),
    "a full stop": lambda text: text + ".",
    "named": lambda text: f"z = {text}",
    "in a sentence": lambda text: rf"\text{{The answer is }} {text}",
}


@SETTINGS
@given(trees, st.sampled_from(sorted(RESPELLINGS)))
def test_an_expression_equals_its_other_spellings(tree, way):
    assert combined(RESPELLINGS[way](tree[0]), tree[0])
    assert combined(tree[0], RESPELLINGS[way](tree[0]))


@SETTINGS
@given(trees, trees)
def test_two_expressions_are_equal_exactly_where_their_values_are(left, right):
    if left[1] != right[1]:
        assert not combined(left[0], right[0])


@SETTINGS
@given(trees, st.sampled_from(["sign", "one more", "half", "square", "letter", "brackets"]))
def test_no_mutant_of_an_expression_is_accepted(tree, kind):
    text, value = tree
    if kind == "sign":
        assume(value != 0)
        mutant = rf"-\left({text}\right)"
    elif kind == "one more":
        mutant = f"{text}+1"
    elif kind == "half":
        assume(value != 0)
        mutant = rf"\frac{{{text}}}{{2}}"
    elif kind == "square":
        assume(value not in (0, 1))
        mutant = rf"\left({text}\right)^{{2}}"
    elif kind == "letter":
        names = [name for name in sorted(AT) if name in re.sub(r"\\[a-z]+", "", text)]
        assume(names)
        mutant = re.sub(rf"(?<![a-z\\]){names[0]}(?![a-z])", "w", text)
        assume(mutant != text and not combined(f"{text}-({mutant})", "0"))
    else:
        mutant = rf"({text},{text})"
    assert not combined(mutant, text)
    assert not combined(text, mutant)


numbers = st.fractions(min_value=-1000, max_value=1000, max_denominator=1000)


def spelled(value):
    sign = "-" if value < 0 else ""
    top, bottom = abs(value).numerator, value.denominator
    return f"{sign}{top}" if bottom == 1 else rf"{sign}\frac{{{top}}}{{{bottom}}}"


@SETTINGS
@given(numbers, numbers)
def test_numbers_are_equal_exactly_where_they_are(left, right):
    assert combined(spelled(left), spelled(right)) == (left == right)
    assert combined(f"{left.numerator}/{left.denominator}", spelled(left))


@SETTINGS
@given(st.integers(1, 9999), st.integers(-300, 300), st.integers(-300, 300), st.booleans())
def test_no_size_is_too_small_to_matter(digits, exponent, other, negative):
    one = rf"{digits}\times 10^{{{exponent}}}"
    assert combined(f"{digits}e{exponent}", one)
    assert not combined(f"-{one}", one)
    assert not combined(one, "0")
    assert combined(rf"{digits}\cdot 10^{{{other}}}", one) == (other == exponent)
    sign = "-" if negative else "+"
    assert not combined(rf"\sqrt{{2}}{sign}{one}", r"\sqrt{2}")


UNITS = [
    "cm",
    "m",
    "kg",
    "g",
    "s",
    "cm^2",
    "cm^3",
    "km/h",
    "^\\circ",
    "\\%",
    " dollars",
    " apples",
    "mL",
]


@SETTINGS
@given(st.integers(2, 999), st.sampled_from(UNITS), st.sampled_from(UNITS))
def test_a_unit_may_be_missing_and_never_be_another(value, unit, other):
    def written(name):
        return (
            f"{value}{name}"
            if name[0] in "^\\ "
            else rf"{value}\text{{ {name.split('^')[0]}}}"
            + ("^" + name.split("^")[1] if "^" in name else "")
        )

    assert combined(written(unit), str(value))
    assert combined(str(value), written(unit))
    assert combined(written(unit), written(other)) == (unit == other)
    assert not combined(written(unit).replace(str(value), str(value + 1)), written(unit))


members = st.lists(st.integers(-50, 50), min_size=2, max_size=5)


@SETTINGS
@given(members, st.randoms(use_true_random=False))
def test_lists_and_sets_have_no_order_and_points_have(values, draw):
    shuffled = list(values)
    draw.shuffle(shuffled)
    listed, other = (", ".join(map(str, each)) for each in (values, shuffled))
    assert combined(other, listed)
    assert combined(rf"\{{{other}\}}", rf"\{{{listed}\}}")
    assert combined(f"({other})", f"({listed})") == (values == shuffled)
    assert not combined(f"({listed})", rf"\{{{listed}\}}")
    assert not combined(listed, f"({listed})")
    fewer = ", ".join(map(str, values[:-1]))
    assert not combined(fewer, listed)
    assert not combined(listed, fewer)
    assert not combined(str(values[-1]), listed)


@SETTINGS
@given(st.integers(-20, 20), st.integers(1, 20), st.sampled_from("([") , st.sampled_from(")]"))  # fmt: skip
def test_an_interval_is_its_inequality_and_no_other(low, width, left, right):
    interval = f"{left}{low},{low + width}{right}"
    below, above = "<" if left == "(" else r"\le", "<" if right == ")" else r"\le"
    assert combined(f"{low} {below} x {above} {low + width}", interval)
    for mutant in ("(", "["):
        if mutant != left:
            assert not combined(mutant + interval[1:], interval)
    assert not combined(f"{left}{low},{low + width + 1}{right}", interval)
    assert not combined(f"{low}{low + width}", interval)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_a_moved_brace_is_another_value(a, b, c):
    pairs = [
        (rf"\frac{{{a}}}{{{b}{c}}}", rf"\frac{{{a}{b}}}{{{c}}}", Fraction(a, 10 * b + c) != Fraction(10 * a + b, c)),
        (rf"\frac{{{a}}}{{{b}}}x", rf"\frac{{{a}}}{{{b}x}}", True),
        (rf"\sqrt{{{a}}}x", rf"\sqrt{{{a}x}}", True),
        (rf"{a + 1}^{{n}}+{b}", rf"{a + 1}^{{n+{b}}}", True),
        (rf"x^{{{a}{b}}}", rf"x^{{{a}}}{b}", True),
        (rf"{a} {b}/{c}", rf"{a}{b}/{c}", True),
        (rf"{a} {b} {c}", f"{a}{b}{c}", True),
        (rf"({a}0{b},{c})", f"{a}0{b}{c}", True),
    ]  # fmt: skip
    for one, other, is_other in pairs:
        if is_other:
            assert not combined(one, other)
            assert not combined(other, one)


# --- real answers ---------------------------------------------------------------------------------


def references():
    text = (GOLDEN / "reference_answers.jsonl").read_text("utf-8")
    return sorted({json.loads(line)["answer"] for line in text.splitlines()})


def squeezed(text):
    """An answer as no more than its digits, letters and signs: equal ones may be the same answer."""
    text = re.sub(r"^\s*\$?\s*\w\s*=", "", text)  # a name may be missing
    return re.sub(r"\\(?:left|right|mathrm|text|quad|[,;:! ])|[\s${}.]", "", text)


def real_mutants(text):
    """Mutants of one real answer: each has another value, whatever the answer means."""
    yield "another digit", re.sub(r"\d", lambda m: str((int(m[0]) + 1) % 10), text, count=1)
    yield "a sign", re.sub(r"(?<=[\w}) ])\+(?=[\s\w\\])", "-", text, count=1)
    yield (
        "another exponent",
        re.sub(r"\^\{?(\d)\}?(?!\d)", lambda m: f"^{{{int(m[1]) + 1}}}", text, count=1),
    )
    yield "another letter", re.sub(r"(?<![A-Za-z\\{])[xyztn](?![A-Za-z}])", "w", text, count=1)
    yield "another opening bracket", re.sub(r"^(\$?)(\\left)?\((?=.*,)", r"\1\2[", text, count=1)
    yield "one member more", f"{text}, 977"
    yield "a hedge", rf"{text} \text{{ or }} 977"
    yield "both", rf"977 \text{{ or }} {text}"
    yield "another function", text.replace(r"\sin", r"\cos", 1)
    yield "another root", text.replace(r"\sqrt{", r"\sqrt[5]{", 1)
    yield (
        "a moved brace",
        re.sub(r"\\frac\{(\d)\}\{(\d)(\d+)\}", r"\\frac{\1\2}{\3}", text, count=1),
    )


# Digits that carry no value: one of an index that is only a name, or of `\frac{0}{...}`, or 0^{2}.
VALUELESS = re.compile(r"(?<![\d.])[01]\^|\^\{?0|\\sqrt\{[01]\}")


# As an equation it says C = 0, and so does its mutant.
SAME_EITHER_WAY = r"$1 /\left(2 \cos ^{2} x\right)=(1 / 2) \sec ^{2} x+C$"


def test_no_mutant_of_a_real_answer_is_accepted():
    tried = []
    for text in references()[::EVERY]:
        if len(text) > 60 or VALUELESS.search(text) or text == SAME_EITHER_WAY:
            continue
        for kind, mutant in real_mutants(text):
            if mutant != text:
                tried += [(kind, mutant, text), (kind, text, mutant)]
    verdicts = accepted([(answer, reference) for _, answer, reference in tried])
    print(f"{len(tried)} pairs of a real answer and a mutant")
    assert [pair for pair, paid in zip(tried, verdicts, strict=True) if paid] == []
    assert len(tried) > 12_000 / EVERY


def test_real_answers_equal_their_other_spellings():
    pairs = []
    for text in references():
        if len(text) > 150:
            continue
        pairs += [
            (text.replace(r"\frac", r"\dfrac"), text),
            (f" {text} ", text),
            (rf"\boxed{{{text}}}", text),
        ]
        if r"\right." not in text:
            pairs.append((re.sub(r"\\(?:left|right)(?![a-z])", "", text), text))
    refused = [pair for pair, paid in zip(pairs, accepted(pairs), strict=True) if not paid]
    assert refused == []


VALUE = re.compile(
    r"\$?\s*(-?)\s*(?:\\frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d+)\s*/\s*(\d+)|(\d+(?:\.\d+)?))\s*\$?"
)


def plain_value(text):
    match = VALUE.fullmatch(text)
    if match is None:
        return None
    size = (
        Fraction(match[6])
        if match[6]
        else Fraction(int(match[2] or match[4]), int(match[3] or match[5]))
    )
    return -size if match[1] else size


def test_plain_numbers_among_real_answers_agree_exactly_where_they_are_equal():
    plain = [(text, plain_value(text)) for text in references() if plain_value(text) is not None]
    draw = random.Random(0)
    pairs = draw.sample(list(combinations(plain, 2)), 2_000)
    # Equal ones are rare in a sample: all of them are asked.
    pairs += [(a, b) for a, b in combinations(plain, 2) if a[1] == b[1]]
    verdicts = accepted([(one, other) for (one, _), (other, _) in pairs])
    expected = [first == second for (_, first), (_, second) in pairs]
    wrong = [p for p, paid, same in zip(pairs, verdicts, expected, strict=True) if paid != same]
    assert wrong == []
    assert len(plain) > 300


def test_real_answers_of_several_letters_never_pay_for_one_another():
    """Answers with variables: pairs that are drawn at random, none of which mean the same."""
    symbolic = [t for t in references() if re.search(r"[xyzt]", t) and len(t) < 80]
    draw = random.Random(1)
    pairs = [draw.sample(symbolic, 2) for _ in range(1_000)]
    paid = [pair for pair, verdict in zip(pairs, accepted(pairs), strict=True) if verdict]
    assert [(one, other) for one, other in paid if squeezed(one) != squeezed(other)] == []


@pytest.mark.parametrize("value", [math.nan])
def test_a_reference_that_is_no_number_is_met_by_nothing(value):
    for answer in ("nan", "NaN", r"\text{nan}", "0"):
        assert not combined(answer, str(value))
