"""Ways to be paid for an answer that is wrong, each of which earns nothing, and right answers in
spellings that a strict grader refuses."""

import pytest

from papo.rewards.extraction import close_up_tags, last_boxed_lenient
from papo.rewards.graders import GRADERS

combined = GRADERS["combined"]

# answer, reference
UNPAID = [
    ("(B) or (C)", "B"), ("B. No, A", "B"), ("D, E", "D"), ("D E", "D"), ("D/E", "D"), ("B or C", "B"),
    ("(D) or (E)", "D"), ("D. or E", "D"), ("not D", "D"), ("D. A", "D"), ("A and B", "A"),
    ("(B) is wrong, (C)", "B"), ("(B) is wrong", "B"), ("B: not", "B"), ("BC", "B"), ("B, C", "B"), ("B? C", "B"),
    ("B; C", "B"), ("B) C)", "B"), ("B. C.", "B"), ("**B** **C**", "B"), ("(B), (C)", "B"), ("B (or C)", "B"),
    ("B, maybe C", "B"), ("B. or c", "B"), ("(b) or (c)", "B"), ("B. The answer is C", "B"),
    ("(B) no wait it is C", "B"), ("x=4 or x=3", "3"), (r"3 \text{ or } 4", "3"), ("3,4", "3"), ("3;4", "4"),
    ("3 & 4", "4"), ("x=x=3", "3"), ("x=x", "3"), ("3=x=4", "3"), ("x=3=4", "4"), ("x=4=3", "3"), ("3=4", "4"),
    ("4=3", "3"), (r"\neq 3", "3"), (r"x\neq 3", "3"), (r"x \neq 3", "x=3"), (r"x\ne3", r"x\ne4"), ("> 3", "3"),
    ("x>3", "3"), ("x>3", r"x\ge 3"), ("x<3", "x>3"), (r"\{3,4\}", "(3,4)"), ("(3,4)", "3,4"), ("3,4", "(3,4)"),
    ("2 1/2", "21/2"), ("21/2", "2 1/2"), ("nan", "nan"), ("NaN", "nan"), (r"\text{nan}", "NaN"),
    (r"1.7\times10^{-19}", r"1.6\times10^{-19}"), ("2^{-98}", "2^{-99}"), ("0.0000001", "0"), ("0", "0.0000001"),
    (r"\sqrt{2}+10^{-90}", r"\sqrt{2}"), ("0.3", r"0.\overline{3}"), ("0.333", r"0.\overline{3}"),
    ("$10", "10 cents"), ("101_3", "101_2"), ("30'", r"30^\circ"), ("1 2 3", "123"), ("[0,100]", "(0,100)"),
    ("100200", "100, 200"), ("120", "(0,120)"), ("3:1:2", "3:2:1"), ("3 not", "3"), ("3 or so", "3"),
    ("3 is wrong", "3"), ("3 thousand", "3"), ("3 dozen", "3"), ("3 tenths", "3"), ("3 or 3", "3"), ("3, 3", "3"),
    (r"\boxed{3}\boxed{4}", "3"), (r"\boxed{3} \boxed{4}", "4"), ("3 4", "3"), (r"3\\4", "3"),
    (r"\frac{3}{1} 4", "3"), ("x", "3"), ("0/0", "3"), (r"\infty-\infty", "0"), (r"-\infty", r"\infty"),
    ("What is 3?", "3"), ("the answer is 3 or 4", "3"), ("The answer is 3, the answer is 4", "4"),
    ("The answer is not 3", "3"), ("3.", "3.1"), ("12 cm^3", "12 cm^2"), ("12 m/s", "12 m"), ("5m", "5"),
    ("x^{2}", "x2"), ("x^{12}", "x^1 2"), ("AB", "AC"), ("VI", "IV"), ("ABCD", "ACBD"), ("i", "-i"),
    (r"\sqrt{x^2}", "x"), ("|x|", "x"), (r"3 \pm 1", "4"), ("4", r"3\pm 1"), (r"\pm 3", "3"), ("3", "x=3 or x=4"),
    ("(1,2),(3,4)", "(3,4)"), ("(2,1)", "(x,y)=(1,2)"), ("x=1,y=2", "x=2,y=1"), ("2,1", "x=1,y=2"),
    ("f(x)=2x", "g(x)=2x"), ("x=5", "y=5"), (r"\ln x", r"\log x"), ("12:30 am", "12:30 pm"), ("6:15", "12:30"),
    ("3 kg", "3 g"), ("3 apples", "3 pears"), ("5 seconds", "5 minutes"), ("-5", "5"), ("5!", "5"),
    (r"3^\circ", "3 radians"), (r"\text{yes or no}", "yes"), ("yes no", "yes"), ("Yes, no", "Yes"),
    (r"\int x dx", r"\int y dx"), (r"\sum_{k=0}^{n} k", r"\sum_{k=0}^{n-1} k"), ("a_1", "a_2"), ("a_{12}", "a_1 2"),
    ("2x", "2X"), ("x", "X"), (r"12\%", "12 cm"), (r"3\text{ or }4", "4"), ("3 vs 4", "3"), ("3/4 or 1", "3/4"),
    ("3?", "3"), ("3 ?", "3"), ("approximately 3", "3"), (r"\approx 3", "3"), (r"x\approx 3", "3"), ("(3", "3"),
    ("3)", "3"), ("(3]", "3"), ("10 0", "100"), ("1 000", "1000"), ("3{4}", "34"), ("{3}{4}", "34"), ("3_4", "34"),
    ("2e", "2e2"), ("1.6e-19", "-1.6e-19"), ("3e8", "3e7"), ("% 3", "3"), ("3%4", "3"), ("3 'or' 4", "3"),
    ("3 (or 4)", "3"), ("3 (4)", "3"), ("3 [4]", "3"), ("3(not)", "3"), ("x=3 (false)", "3"), ("3, or 4", "3"),
    ("either 3", "3"), ("3 / 4", "3"), ("any number", "3"), (r"x \in \{3,4\}", "3"), (r"x\in\mathbb{R}", "3"),
    (r"3\text{ (or 4)}", "3"), ("c", "3"), ("C", "3"), ("3 to 4", "3"), ("3-4", "3"), ("3~4", "34"), ("D. E", "D"),
    ("D: B", "D"), ("(D) (E)", "D"), ("D: not E", "D"), ("(D) E", "D"), ("(D) e", "D"), ("d or e", "D"),
    ("D, not E", "D"), ("D) or B)", "D"), (r"D\text{ or }E", "D"), (r"D\\E", "D"), ("D|E", "D"), ("D & E", "D"),
    ("D+E", "D"), ("D; or maybe the option E", "D"), ("(D) 12 (E) 14", "D"), ("D. 12 E. 14", "D"),
    ("D. 12, E. 14", "D"), ("D. 12, E 14", "D"), ("D 12 or E 14", "D"),
    # an equation or inequality of the problem, repeated
    ("2x+4=10", "x=3"), ("2x+4>10", "x>3"), ("x+1=4", "x=3"), ("x=3", "2x+4=10"), ("x^2-5x+6=0", "x=2,x=3"),
    # written to agree at the values that variables had for every pair, whatever stood in it
    (r"x+(x-\frac{7086}{4001})(x-\frac{3391}{4001})(x-\frac{6077}{173})(x+\frac{3488}{173})", "x"),
    ("x<2 and x>3", "x<2 or x>3"), ("red or blue", "red and blue"), ("1,234", "1.234"), ("12,345", "12.345"),
    (",5", "5"), ("3,,4", "3,4"), ("3:5", "3:05"), ("6:10", "3:05"), ("3:50", "3:05"), ("~3", "3"), ("x = ~3", "3"),
    ("~A", "A"), ("1, 2, 3, ...", "1, 2, 3"), ("1, 2, 3, …", "1, 2, 3"), ("3...", "3"), ("1, 2, ..., 10", "1, 2, 10"),
    ("3 dozens", "3"), ("3 lakh", "3"), ("3 elevenths", "3"), ("3 nineteenths", "3"), ("3 万", "3"), ("3 分之", "3"),
    ("3 approx", "3"), ("3ish", "3"), ("3 max", "3"), ("3 nope", "3"), ("3 guess", "3"), ("3 reciprocal", "3"),
    ("A. Let me choose B.", "A"), ("A. Final: B", "A"), (r"A. \boxed{B}", "A"), ("A. Could be b too", "A"),
    ("A. or c", "A"), ("A. 5 or c", "A"), ("A. 5 or (c)", "A"), ("A. Both A and B", "A"), ("(B) no, A", "B"),
    (r"\angle 1 = 40", r"\angle 2 = 40"), (r"\angle 12 = 40", r"\angle 21 = 40"), (r"\widehat{AB}=50", r"\widehat{AC}=50"),
    ("Option (C) or (D)", "C"), ("Option (D)", "C"), ("c) d)", "C"), ("f(4)=4", "f(3)=4"), ("f(3)", "3"), ("3 x 10^4", "3000"), ("∛8", "√8"), ("AB ⊥ CD", r"AB \parallel CD"),
    ("7:30 a.m.", "7:30 p.m."),
]  # fmt: skip

PAID = [
    ("D. The area is 12", "D"), ("(D) B, D and F are turning anticlockwise", "D"), ("(D)5", "D"), ("Ｄ", "D"),
    ("D、12", "D"), ("D.", "D"), ("(D)", "(D)"), ("The answer is D", "D"), ("the correct answer is (D)", "D"),
    ("Answer: D", "D"), ("D: 2x+1", "D"), ("(D) False", "D"), ("(D) 12 cm", "D"),
    (r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    (r"\begin{aligned} 42 \end{aligned}", "42"), ("6:4:2", "3:2:1"), (r"\sin 30^\circ", "1/2"), ("x⁴", "x^4"),
    (r"\{x|x>3\}", r"(3,\infty)"), (r"\{x \mid x \geq 3\}", r"x\ge 3"), ("sqrt(2)/2", r"\frac{\sqrt{2}}{2}"),
    ("pi/2", r"\frac{\pi}{2}"), ("2*x+1", "2x+1"), ("x**2", "x^2"), ("b>a", "a<b"), (r"\binom{3}{1}", "3"),
    ("0.333333", "1/3"), ("1/3", "0.333333"), ("2.828427", r"2\sqrt{2}"), (r"\{1,2\}", "2,1"), ("1", r"\{1\}"),
    ("2 1/2", "5/2"), ("1⅔", "5/3"), ("12 cm²", "12 cm^2"), ("12 cm2", "12 square centimeters"),
    ("60 mph", "60 mi/h"), ("60 km/h", "60"), ("60 miles per hour", "60 mph"), (r"16\pi\text{ m}^2", r"16\pi"),
    (r"12\text{ pounds}", "12"), ("30 degrees", r"30^\circ"), (r"\$10", "10 dollars"), ("$10", "10"),
    ("1,234", "1234"), ("$1,234.50", "1234.5"), ("12,345,678", "12345678"), ("x=-2,x=5", "x=-2,5"),
    ("-2,5", "x=-2,5"), (r"x \neq 2", r"x \neq 2"), (r"(-\infty,2)\cup(2,\infty)", r"x\neq 2"),
    (r"179^{\circ} 59^{\prime} 56^{\prime \prime}", "179° 59' 56\""), (r"\tan^{-1} 1", r"\frac{\pi}{4}"),
    (r"\arctan x", r"\tan^{-1}(x)"), (r"\log_2 8", "3"), (r"e^{\ln 3}", "3"), (r"\frac{x^2-1}{x-1}", "x+1"),
    (r"\sin^2 x+\cos^2 x", "1"), ("(0.5,1)", "(1/2,1)"), ("3x+2y=6", "6=3x+2y"), ("y=2x+1", "2x-y+1=0"),
    ("f(x)=2x", "y=2x"), (r"50\%", r"\frac12"), ("5 million", "5000000"), ("3.84e5", r"3.84 \times 10^{5}"),
    (r"\sqrt[3]{-8}", "-2"), ("|x-1|", "|1-x|"), (r"\lfloor 3.5 \rfloor", "3"), ("5!", "120"), ("3 ", "3"),
    (r"\text{Yes}", "yes"), (r"1 \text{ and } 2", "2, 1"), (r"x=\pm 2", r"x=2 \text{ or } x=-2"), ("AB=5", "5"),
    ("BA=5", "AB = 5"), (r"x \in [1,2]", r"1\le x\le 2"), ("2x^2", "2 x^{2}"),
    (r"\frac{1}{2}\ln(x)", r"\ln(\sqrt{x})"), ("The area is 12", "12"), ("The area of the triangle is 12 cm", "12"),
    (r"12.5\,\mathrm{kg}", "12.5 kg"), ("12 apples", "12 apple"), (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"\frac{3\sqrt5}{5}", r"\frac{3}{\sqrt{5}}"), (r"2\pi r", r"2r\pi"), ("C_1e^x", "C_1 e^x"), ("ab", "ba"),
    (r"36\sqrt{7}", r"$36\sqrt{7}cm^{3}$"), ("0", "-0"), ("1,000,000 people", "1000000"),
    (r"2^{n+1}", r"2\cdot 2^n"), ("e^{-x}", r"\frac{1}{e^x}"), (r"\sqrt{x}", "x^{1/2}"), (r"\sin(2x)", r"2\sin x\cos x"),
    (r"\sqrt[7]{x}", "x^{1/7}"), ("75\\%", "3/4"), (r"9:00 \text{ am}", "9:00"),
    ("f(3) = 4", "4"), ("f(-1)=2", "2"), ("P(0) = 1/2", "0.5"), ("3 x 10^8", r"3\times 10^8"), ("3x10^{-2}", "0.03"),
    ("∛8", "2"), ("∛27", "3"), ("∜16", "2"), (r"\sqrt[3] 27", "3"), ("AB ∥ CD", r"AB \parallel CD"),
    ("AB ⊥ CD", r"AB \perp CD"), ("3 Kg", "3 kg"), ("3 Km", "3 km"), ("7:30 a.m.", "7:30"), ("7:30 P.M.", "7:30 pm"),
    ("A. No", "A"), ("(B) No.", "B"), ("A. 3 or 4", "A"), ("(B) x=1 or x=3", "B"), ("D. Both A and B", "D"),
    ("D. Neither B nor C", "D"), ("x-3=0", "x=3"), ("0=x-3", "x=3"), ("2x-y=-1", "y=2x+1"), ("x+y=0", "y=-x"), (r"m\angle 1 = 40", "40"), (r"\angle 1 = 40^\circ", "40"),
    (r"m\angle 1=40", r"\angle 1 = 40"), (r"\widehat{AB} = 50^\circ", "50"), (r"\widehat{BA}=50", r"\widehat{AB} = 50"),
    ("Choice (C)", "C"), ("Option (C) 12", "C"), (r"\text{Option } (C)", "C"), ("c)", "C"), ("2x+2y=0", "x+y=0"), ("x-y=0", "x=y"), ("x<0", "0>x"), ("2x=6", "3x=9"),
    ("1 or 2", "1 and 2"), ("x>3 or x<2", "x<2 or x>3"), ("3,", "3"), ("0,25", "0.25"), ("12,34", "12.34"),
    ("3:05", "3:05 pm"), ("3~cm", "3 cm"), ("١٢", "12"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "reference"), UNPAID)
def test_a_wrong_answer_or_a_hedge_earns_nothing(answer, reference):
    assert not combined(answer, reference)


@pytest.mark.parametrize(("answer", "reference"), PAID)
def test_a_right_answer_in_another_spelling_is_paid(answer, reference):
    assert combined(answer, reference)


def read(text):
    return last_boxed_lenient(close_up_tags(text))


@pytest.mark.parametrize(
    "response",
    [
        "I do not know. % \\boxed{4}",
        "text\n% \\boxed{4}\nmore",
        "<!-- \\boxed{4} -->",
        "\\boxed{3} <!-- \\boxed{4} -->",
        "\\boxed{3} % \\boxed{4}",
        "\\boxed{\\boxed{3}\\boxed{4}}",
        "\\boxed{\\boxed{3}, \\boxed{4}}",
        "\\boxed{\\boxed{4} or \\boxed{3}}",
        "\\boxed{4 \\text{ or } \\boxed{3}}",
        "\\boxed{What is 4?}",
        "\\boxed{3 % 4\n}",
    ],
)
def test_a_box_in_a_comment_and_several_boxes_in_one_earn_nothing(response):
    answer = read(response)
    assert not answer or not combined(answer, "4")


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("a discount of 50%, so \\boxed{4}", "4"),
        ("50% so \\boxed{4}", "4"),
        ("50 \\% so \\boxed{4}", "4"),
        ("the % increase is \\boxed{4}", "4"),
        ("50 % of 8 is \\boxed{4}", "4"),
        ("<!-- sketch --> \\boxed{4}", "4"),
        ("% a comment\n\\boxed{4}", "4"),
        ("\\boxed{\\boxed{4}}", "4"),
    ],
)
def test_a_percent_sign_before_a_box_is_no_comment(response, answer):
    assert read(response) == answer
