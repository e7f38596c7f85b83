import json
import random
from pathlib import Path

import mathruler.grader
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy.parsing import sympy_parser

from papo.rewards import sympy_guard
from papo.rewards.extraction import close_up_tags, last_boxed, last_boxed_lenient
from papo.rewards.graders import GRADERS

GOLDEN = Path(__file__).parents[1] / "golden"

# answer, reference, what mathruler, math_verify and combined say ("y" or "n")
VERDICTS = [
    ("12", "12", "yyy"),
    ("-5", "5", "nnn"),
    ("0.5", r"\frac{1}{2}", "yyy"),
    (r"2\sqrt{13}", r"2 \sqrt { 13 }", "yyy"),
    ("4√3", r"4 \sqrt { 3 }", "nny"),
    ("3", r"4 \sqrt { 3 }", "nnn"),
    (r"\frac{6}{8}", r"\frac{3}{4}", "nyy"),
    (r"3 \times 10^8", "300000000", "nyy"),
    ("3e8", "300000000", "yny"),
    ("x=5", "y=5", "ynn"),
    ("5", "x = 5", "yyy"),
    ("x = 2 + 3 = 5", "5", "nyy"),
    ("listen", "silent", "nyn"),
    ("isosceles triangle", "Isosceles Triangle", "yny"),
    ("No", "no.", "nny"),
    ("about 5 apples", "5", "nnn"),
    (r"LaTeX \foo{ $29$ } x", "29", "nyn"),
    ("12 cm", "12 m", "nyn"),
    ("12 cm^2", "12 cm", "ynn"),
    ("12 square centimeters", "12 cm^2", "nny"),
    (r"6\ \mathrm{cm}", "6", "yyy"),
    ("5 dollars", "5", "nny"),
    ("12 dollars", "12 cents", "nnn"),
    ("5 million", "5", "nnn"),
    ("5 thousand", "5000", "nny"),
    ("50%", "50", "yyy"),
    ("50%", "0.5", "nny"),
    (r"60^{\circ}", "60", "yyy"),
    ("0,5", "0.5", "nny"),
    ("1,2", "12", "nnn"),
    (r"1\,234", "1234", "nny"),
    ("10, 20", "20, 10", "nyy"),
    ("3", "3 or 4", "nnn"),
    (r"2\pm\sqrt{3}", r"2+\sqrt{3}, 2-\sqrt{3}", "nyy"),
    ("(2, 1)", "(1, 2)", "nnn"),
    ("(1,2)", "[1,2]", "nnn"),
    ("2 < x < 5", "(2,5)", "nny"),
    ("B) 12", "B", "nny"),
    ("The answer is B", "B", "nny"),
    ("A triangle", "A", "nnn"),
    ("12", "B", "nnn"),
    ("(A) and (C)", "A, C", "nyy"),
    ("AC", "A, C", "nny"),
    ("A", "A, C", "nnn"),
    ("seconds", "12 seconds", "nnn"),
]


@pytest.mark.parametrize(("answer", "reference", "expected"), VERDICTS)
def test_each_grader_gives_the_known_verdict(answer, reference, expected):
    verdicts = [GRADERS[name](answer, reference) for name in GRADERS]
    assert "".join("ny"[verdict] for verdict in verdicts) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "accepted"),
    [
        (r"\angle CBA = 40", r"\angle ABC = 40", True),
        (r"\angle ABC = 40^\circ", r"m\angle CBA = 40", True),
        (r"\angle CBA = 50", r"\angle ABC = 40", False),
        (r"\angle ABD = 40", r"\angle ABC = 40", False),
        # Three other letters of the same angle's triangle: another corner.
        (r"\angle BCA = 40", r"\angle ABC = 40", False),
        (r"\angle{CBA} = 40", r"\angle ABC = 40", True),
    ],
)
def test_the_name_of_an_angle_may_be_read_from_either_end(answer, reference, accepted):
    assert GRADERS["combined"](answer, reference) is accepted


# Lines of the golden file on which the two published graders are known to be wrong; combined: none.
KNOWN_FAILURES = {
    "mathruler": {5, 14, 16, 18, 22, 26, 28, 40, 43, 44, 46, 48, 54, 55, 61, 62, 64, 66, 67, 72, 74, 80},
    "math_verify": {14, 16, 26, 37, 40, 43, 44, 46, 52, 66, 72, 74},
    "combined": set(),
}  # fmt: skip


def json_lines(file):
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def golden_cases():
    return json_lines(GOLDEN / "grader_cases.jsonl")


@pytest.mark.parametrize("name", GRADERS)
def test_golden_verdicts_differ_only_where_known(golden_cases, name):
    extract = last_boxed_lenient if name == "combined" else last_boxed
    failures = set()
    for line, case in enumerate(golden_cases, start=1):
        answer = extract(close_up_tags(case["prediction"]))
        verdict = bool(answer) and GRADERS[name](answer, case["answer"])
        if verdict != case["expected"]:
            failures.add(line)
    assert len(golden_cases) == 88
    assert failures == KNOWN_FAILURES[name]


def test_cases_from_public_reports_get_the_verdict_a_person_would_give():
    cases = json_lines(GOLDEN / "grader_cases_reports.jsonl")
    assert len(cases) == 78
    verdicts = [
        GRADERS["combined"](
            last_boxed_lenient(close_up_tags(case["prediction"])) or "", case["answer"]
        )
        for case in cases
    ]
    paid = [c for c, verdict in zip(cases, verdicts, strict=True) if verdict and not c["expected"]]
    refused = [
        c for c, verdict in zip(cases, verdicts, strict=True) if c["expected"] and not verdict
    ]
    assert paid == []
    assert refused == []


def test_every_reference_of_real_data_sets_is_its_own_right_answer():
    references = [row["answer"] for row in json_lines(GOLDEN / "reference_answers.jsonl")]
    assert len(references) == 2193
    for reference in references:
        assert GRADERS["combined"](reference, reference), reference


def test_mathruler_gives_the_verdicts_it_gives_without_the_guard(monkeypatch):
    pairs = [(answer, reference) for answer, reference, _ in VERDICTS]
    pairs += [(r"\frac{2\sqrt{3}}{3}", r"\frac{2}{\sqrt{3}}"), ("2x+2x", "4x"), ("ln(4)", "2ln(2)")]
    guarded = [GRADERS["mathruler"](*pair) for pair in pairs]
    monkeypatch.setattr(sympy_parser, "eval_expr", sympy_guard._original_eval)
    assert guarded == [mathruler.grader.grade_answer(*pair) for pair in pairs]


def test_mathruler_judges_geometry3k_references_as_it_does_without_the_guard(monkeypatch):
    references = json.loads((GOLDEN / "geometry3k_references.json").read_text("utf-8"))
    assert len(references) == 183
    draw = random.Random(0)
    pairs = [(draw.choice(references), draw.choice(references)) for _ in range(150)]
    pairs += [(reference, reference) for reference in references]
    guarded = [GRADERS["mathruler"](*pair) for pair in pairs]
    monkeypatch.setattr(sympy_parser, "eval_expr", sympy_guard._original_eval)
    assert guarded == [mathruler.grader.grade_answer(*pair) for pair in pairs]
    assert all(guarded[150:])


PAYLOADS = [
    "__import__('os').system('touch {canary}')",
    "open('{canary}', 'w')",
    "eval(chr(111))",
    "().__class__.__bases__[0].__subclasses__()",
    "Symbol.__init__.__globals__",
    "(lambda: 1)()",
    "[x for x in (1,)]",
    "sqrt('__import__(1)')",
    "Symbol('a (b)')",
    "Integer(1).func",
    "print(1)",
    "S('1')",
    'f"{{1}}"',
    "x if x else x",
    "x:=1",
    "9**9**9**9",
    "factorial(factorial(99))",
    "99999999!",
    "(9**9999)**9999",
    "Float('1e99999999')",
]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_sympy_never_evaluates_what_is_not_small_arithmetic(payload, tmp_path):
    canary = tmp_path / "canary"
    payload = payload.replace("{canary}", str(canary))
    with pytest.raises((sympy_guard.RefusedExpressionError, SyntaxError, TypeError)):
        sympy_parser.parse_expr(payload)
    with pytest.raises((sympy_guard.RefusedExpressionError, sympy.SympifyError, TypeError)):
        sympy.sympify(payload)
    assert not canary.exists()


def test_code_compiled_without_evaluation_is_refused_too():
    with pytest.raises(sympy_guard.RefusedExpressionError):
        sympy_parser.parse_expr("print(1)", evaluate=False)


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6))
def test_an_integer_or_fraction_equals_itself_and_not_its_successor(numerator, denominator):
    fraction = rf"\frac{{{numerator}}}{{{denominator}}}"
    assert GRADERS["combined"](f"{numerator}/{denominator}", fraction)
    assert not GRADERS["combined"](str(numerator + 1), str(numerator))


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_gets_a_verdict(text):
    assert isinstance(GRADERS["combined"](text, "3"), bool)
    assert isinstance(GRADERS["combined"]("3", text), bool)


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("4√3", r"4\sqrt{3}"),
        ("1{,}234,567", "1234567"),
        ("3e8", r"3\times 10^{8}"),
        (r"\text{The answer is } 4", "4"),
        ("((4))", "4"),
        ("(1, 2)", "(1, 2)"),
        ("3:4", r"\frac{3}{4}"),
        ("5 million", r"5\times 10^{6}"),
        (r"$\dfrac{1}{2}$", r"\frac{1}{2}"),
        ("**7**", "7"),
        (r"\$5.00", "5.00"),
    ],
)
def test_answers_are_read_in_every_spelling(written, plain):
    assert GRADERS["combined"](written, plain)
    assert GRADERS["combined"](plain, written)
