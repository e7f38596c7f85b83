r"""Answers that a grader must survive: a seeded grammar of bait, and mutations of what it writes.

`hostile_answer` writes what stands in a box, `hostile_response` a whole response. The same random numbers
give the same text.
"""

import random
from collections.abc import Callable
from pathlib import Path

Draw = random.Random

NUMBERS = (
    "0",
    "1",
    "9",
    "-7",
    "3.5",
    "0.1",
    "1e9",
    "9" * 30,
    "x",
    "n",
    r"\pi",
    r"\infty",
    "٣",
    "²",
    "⅔",
    "①",
    "𝟗",
    "߉",
)
BRACKETS = (
    ("(", ")"),
    ("{", "}"),
    ("[", "]"),
    (r"\{", r"\}"),
    (r"\left(", r"\right)"),
    ("|", "|"),
    ("$", "$"),
)
COMMANDS = (
    "frac", "sqrt", "binom", "sum", "int", "lim", "overline", "text", "mathrm", "begin", "end", "left", "right",
    "color", "boxed", "sin", "log", "begin{pmatrix}", "end{pmatrix}", "mathbb", "operatorname", "pm", "cup", "le",
)  # fmt: skip
CHARACTERS = (
    *(
        "\x00",
        "\x01",
        "\x1b[2J",
        "\r",
        "\n",
        "\x7f",
        "\ud800",
        "\udfff",
        "\u202e",
        "\u200b",
        "\ufeff",
    ),
    *("\U0001f4a9", "％", "，", "‰", "ﬁ", "İ", "ß", "Ǆ", "\u0301" * 5, "½", "Ⅻ", "〇", "﷽"),
)


def _nested(draw: Draw) -> str:
    depth = draw.choice((3, 30, 100, 400, 5_000))
    opening, closing = draw.choice(BRACKETS)
    return (
        opening * depth + draw.choice(NUMBERS) + closing * draw.choice((depth, depth, depth - 1, 0))
    )


def _nested_commands(draw: Draw) -> str:
    depth = draw.choice((3, 12, 40, 150))
    opening = draw.choice(
        (
            r"\frac{1}{",
            r"\sqrt{",
            "2^{",
            r"\sin(",
            r"\binom{9}{",
            r"\text{",
            r"\boxed{",
            "x_{",
            "-(",
            r"\log_{",
        )
    )
    return opening * depth + draw.choice(NUMBERS) + ("}" if opening[-1] == "{" else ")") * depth


def _tower(draw: Draw) -> str:
    operator = draw.choice(("^", "**", "^{", "^-", "^(", "!^"))
    return operator.join(
        draw.choice(("9", "99", "9999", "2", "0.1", "-1", "x")) for _ in range(draw.randint(2, 40))
    )


def _huge(draw: Draw) -> str:
    digits = str(draw.randint(1, 10 ** draw.choice((1, 3, 6, 9, 30))))
    return draw.choice(
        (
            f"{digits}!", f"({digits}!)!", f"{digits}!!!!", f"9^{digits}", f"9^-{digits}", f"10**{digits}", f"1e{digits}",
            rf"\binom{{{digits}}}{{{int(digits) // 2}}}", f"0.{'0' * 500}{digits}", digits * 30, rf"\sqrt[{digits}]{{2}}",
            f"(x+y)^{{{digits}}}", f"(x+1)^{digits}(x-1)^{digits}", rf"\sin({digits}^{digits})", f"log({digits}, 1)",
            rf"\sum_{{k=0}}^{{{digits}}} \frac{{1}}{{k!}}", rf"\prod_{{k=1}}^{{{digits}}} k", rf"\int_0^{{{digits}}} x^x dx",
            rf"\lim_{{x\to {digits}}} x^x", f"{digits} mod 0", f"{digits}/0", rf"\lfloor {digits}^{digits} \rfloor",
            f"x^{digits}=y^{digits}", f"{digits}:{digits}:0", rf"0.\overline{{{digits}}}", f"{digits},{digits}",
        )
    )  # fmt: skip


def code(canary: Path) -> tuple[str, ...]:
    """What makes a file where somebody evaluates, includes or executes it."""
    return (
        f"__import__('os').system('touch {canary}')", f"open('{canary}','w')", f"eval(\"open('{canary}','w')\")",
        f"exec('open(\"{canary}\",\"w\")')", f"S('__import__(\"os\").system(\"touch {canary}\")')",
        f"().__class__.__base__.__subclasses__()[40]('{canary}','w')", f"(lambda: open('{canary}','w'))()",
        f"[open('{canary}','w') for x in [1]][0]", f"$(touch {canary})", f"`touch {canary}`", f"; touch {canary} #",
        f"\\input{{|touch {canary}}}", f"\\write18{{touch {canary}}}", f"{{{{open('{canary}','w')}}}}",
        f"Symbol('x').__init__.__globals__['os'].system('touch {canary}')", f"sympify(\"open('{canary}','w')\")",
        f"cos.__globals__['__builtins__']['open']('{canary}','w')", f"f'{{open(\"{canary}\",\"w\")}}'",
    )  # fmt: skip


NAMES = (
    "exit()", "quit()", "raise SystemExit", "Symbol('x')", "Integer(7)", "Rational(1,0)", "zoo", "oo-oo", "nan",
    "factorial(99999)", "Sum(x,(x,1,10**9))", "Integral(x**x,(x,0,oo))", "sqrt(2)**sqrt(2)**sqrt(2)",
    '"}\n{"correct": true}\n', '{"correct": true}', '\\u0000"', "\\N{BULLET}", "%s%n%x", "True", "None",
)  # fmt: skip


def _bait(draw: Draw) -> str:
    """For regular expressions that look back."""
    size = draw.choice((20, 300, 990))
    piece = draw.choice(
        (" ", "0", "1,", "1,000", ",", "a", "A, ", "(A) or ", "= ", "x=", r"\,", "~", "$", "{}", "}{", "%", "-", "+-", "^{}", "_",
         "'", "!", "|", "||", "\\", r"\\", "&", ":", "1:", "1/2 ", "<", "< ", "3 or ", "and ", "is ", "The answer ", ".", "..", "√",
         "\t", r"\text{a}", r"\left", "1e", "²", "cm ", "cm^2 ", r"\frac", r"\sqrt", "sin ", "xy", "AB", "1 2 ", "((", "))", "],[")
    )  # fmt: skip
    return (piece * size)[:size] + draw.choice(("", "1", "!", "}", "x", r"\end"))


def _salad(draw: Draw) -> str:
    pieces = []
    for _ in range(draw.choice((3, 10, 60))):
        opening, closing = draw.choice(BRACKETS)
        pieces.append(
            draw.choice((draw.choice(NUMBERS), draw.choice(CHARACTERS), "\\" + draw.choice(COMMANDS), opening, closing,
                         draw.choice("+-*/^_=<>,;:!'&|%~ ")))
        )  # fmt: skip
    return "".join(pieces)


def _mutated(draw: Draw, text: str) -> str:
    """Deletes, doubles, exchanges or inserts a few characters."""
    for _ in range(draw.randint(1, 6)):
        at = draw.randrange(len(text) + 1)
        match draw.randrange(4):
            case 0:
                text = text[:at] + text[at + draw.randint(1, 5) :]
            case 1:
                text = text[:at] + text[at : at + 20] * 2 + text[at + 20 :]
            case 2:
                text = text[:at] + draw.choice(CHARACTERS + NUMBERS) + text[at:]
            case _:
                text = text[at:] + text[:at]
    return text


KINDS: dict[str, Callable[[Draw, Path], str]] = {
    "nested": lambda draw, _: _nested(draw),
    "nested commands": lambda draw, _: _nested_commands(draw),
    "tower": lambda draw, _: _tower(draw),
    "huge": lambda draw, _: _huge(draw),
    "code": lambda draw, canary: draw.choice(code(canary)),
    "names": lambda draw, _: draw.choice(NAMES),
    "bait": lambda draw, _: _bait(draw),
    "salad": lambda draw, _: _salad(draw),
    "real": lambda draw, _: draw.choice(REAL),
}

REAL = (
    r"\frac{1}{2}", r"2\sqrt{13}", "(B) 12", r"x=2\text{ or }x=-3", "[1,2)", "12 cm^2", r"60^\circ", "1,234", "3:4", "0.5",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\{x\mid x>3\}", "isosceles triangle", "A, C", r"y=2x+1", "50%", "7:30 pm",
)  # fmt: skip


def hostile_answer(draw: Draw, kind: str, canary: Path) -> str:
    """Returns what stands in a box; every second one is mutated, always the real ones."""
    text = KINDS[kind](draw, canary)
    return _mutated(draw, text) if kind == "real" or draw.random() < 0.5 else text


def hostile_response(draw: Draw, kind: str, canary: Path) -> str:
    """Returns a response around a hostile answer: boxed, doubled, open, nested, or behind a million characters."""
    answer = hostile_answer(draw, kind, canary)
    around = draw.choice(
        (
            r"<think>t</think> \boxed{{{}}}", r"\boxed{{{}}}", r"\boxed{{\boxed{{{}}}}}", r"\boxed{{{}", r"\fbox{{{}}}",
            r"\boxed{{}}\boxed{{{}}}", r"\boxed {{{}}}", r"% \boxed{{{}}}", r"<!-- \boxed{{{}}}", "{}",
            r"\boxed{{3}} or \boxed{{{}}}", "< / think > \\boxed{{{}}}",
        )
    ).format(answer)  # fmt: skip
    if draw.random() < 0.02:
        piece = draw.choice(
            (
                r"\boxed{",
                "{",
                "}",
                "< ",
                " ",
                r"\boxed{1}",
                "<think>",
                "% ",
                "<!--",
                "\\",
                "a",
                "\n%",
                "1,",
            )
        )
        around = (piece * 1_000_000)[:1_000_000] + around
    return around
