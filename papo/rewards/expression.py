r"""An answer's mathematics as a tree: an exact parser of the LaTeX that answers consist of.

Nothing is evaluated and nothing guessed: what the grammar does not know is an `UnreadableError`. The value
of a tree is found in `exact_value`.
"""

import itertools
import re
from dataclasses import dataclass
from fractions import Fraction

from papo.rewards.latex_tokens import FUNCTIONS, Token, UnreadableError, is_language_word

_MAX_DEPTH = 40


@dataclass(frozen=True, slots=True)
class Node:
    """A part of an expression.

    Args:
        head: num, var, add, mul, div, pow, neg, fn, degree, prime, pm, mp, tuple, set, union, matrix,
            ratio, or opaque (a sum, an integral: read, but not computed).
        text: a variable's or function's name, brackets, the kind of a matrix.
        parts: the operands, in their order.
        value: of a number.
    """

    head: str
    text: str = ""
    parts: tuple["Node", ...] = ()
    value: Fraction | None = None

    def names(self) -> frozenset[str]:
        """Returns the names of all variables below."""
        own = frozenset({self.text}) if self.head == "var" else frozenset()
        return own.union(*(part.names() for part in self.parts))

    def holds(self, head: str) -> bool:
        """Whether a node of this head stands here or below."""
        return self.head == head or any(part.holds(head) for part in self.parts)


_GREEK = frozenset(
    {"alpha", "beta", "gamma", "delta", "epsilon", "varepsilon", "zeta", "eta", "theta", "vartheta", "iota",
     "kappa", "lambda", "mu", "nu", "xi", "rho", "sigma", "tau", "upsilon", "phi", "varphi", "chi", "psi",
     "omega", "Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega",
     "pi", "infty", "ell", "emptyset", "ldots", "hbar", "partial", "nabla", "imath", "aleph", "perp"}
)  # fmt: skip
_ACCENTS = frozenset(
    {
        "overline",
        "bar",
        "vec",
        "hat",
        "tilde",
        "widehat",
        "widetilde",
        "overrightarrow",
        "dot",
        "ddot",
    }
    | {"mathbb", "mathcal", "mathfrak", "textcircled", "underline", "overleftrightarrow", "overarc"}
)
_BIG = frozenset(
    {"sum", "prod", "int", "iint", "iiint", "oint", "lim", "max", "min", "sup", "inf", "bigcup"}
)
_FIGURES = frozenset({"angle", "triangle", "square", "odot", "parallel"})
_MATRICES = frozenset({"matrix", "pmatrix", "bmatrix", "array", "smallmatrix", "vmatrix", "Vmatrix", "Bmatrix", "cases"})  # fmt: skip
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot"}
_ROMAN = frozenset("IVXLCDM")


def parse(tokens: list[Token]) -> Node:
    """Returns the tree of one expression: no list, no relation, no unit.

    Raises:
        UnreadableError: it is none.
    """
    reader = _Reader(tokens)
    node = reader.ratio_or_union()
    if reader.position != len(tokens):
        raise UnreadableError(f"{tokens[reader.position].text!r} left over")
    return node


def number(value: int | Fraction) -> Node:
    """Returns a number's tree."""
    return Node("num", value=Fraction(value))


class _Reader:
    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = list(tokens)
        self.position = 0
        self.depth = 0
        self.bars = 0

    def peek(self, ahead: int = 0) -> Token | None:
        index = self.position + ahead
        return self.tokens[index] if index < len(self.tokens) else None

    def sees(self, *texts: str, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token is not None and token.kind in ("op", "cmd") and token.text in texts

    def take(self) -> Token:
        token = self.peek()
        if token is None:
            raise UnreadableError("it ends too early")
        self.position += 1
        return token

    def accept(self, *texts: str) -> bool:
        if self.sees(*texts):
            self.position += 1
            return True
        return False

    def expect(self, text: str) -> None:
        if not self.accept(text):
            raise UnreadableError(f"{text!r} is missing")

    def ratio_or_union(self) -> Node:
        first = self.expression()
        if self.sees(":"):
            terms, is_time = [first], False
            while self.accept(":"):
                following = self.peek()
                is_time |= following is not None and bool(re.fullmatch(r"0\d", following.text))
                terms.append(self.expression())
            return Node("ratio", "time" if is_time else "", tuple(terms))
        if self.sees("cup"):
            members = [first]
            while self.accept("cup"):
                members.append(self.expression())
            return Node("union", parts=tuple(members))
        return first

    def expression(self) -> Node:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise UnreadableError("brackets without end")
        terms = [self.signed_term()]
        while self.sees("+", "-", "pm", "mp"):
            terms.append(self.signed_term())
        self.depth -= 1
        return terms[0] if len(terms) == 1 else Node("add", parts=tuple(terms))

    def signed_term(self) -> Node:
        if self.accept("+"):
            return self.signed_term()
        if self.accept("-"):
            return Node("neg", parts=(self.signed_term(),))
        if self.sees("pm", "mp"):
            head = self.take().text
            return Node(head, parts=(self.term(),))
        return self.term()

    def term(self) -> Node:
        result = self.factor()
        while True:
            if self.accept("*"):
                result = Node("mul", parts=(result, self.signed_factor()))
            elif self.accept("/"):
                result = Node("div", parts=(result, self.signed_factor()))
            elif self.starts_factor():
                before, following = self.tokens[self.position - 1], self.peek()
                assert following is not None
                if following.kind == "num":
                    if result.head == "degree" and self.is_primed_number():
                        result = Node(
                            "degree", parts=(Node("add", parts=(*result.parts, self.minutes())),)
                        )
                        continue
                    if before.kind == "num":
                        result = self.mixed(before, result)
                        continue
                    if before.text not in (")", "]", "}"):
                        raise UnreadableError("a number after a letter")
                result = self.times(before, following, result)
            else:
                return result

    def times(self, before: Token, following: Token, left: Node) -> Node:
        is_integer = before.kind == "num" and before.text.isdigit()
        right = self.factor()
        if is_integer and left.head == "num" and following.text == "frac" and right.head == "div":
            top, bottom = right.parts
            if top.value is not None and bottom.value is not None and top.value < bottom.value:
                return Node("add", parts=(left, right))
        return Node("mul", parts=(left, right))

    def mixed(self, before: Token, whole: Node) -> Node:
        """`2 1/2`; any other two numbers side by side are none."""
        top, slash, bottom = self.peek(), self.peek(1), self.peek(2)
        if (
            top is None or bottom is None or slash is None
            or slash.text != "/" or bottom.kind != "num" or top.gap == 0 or whole.head != "num"
            or not (before.text.isdigit() and top.text.isdigit() and bottom.text.isdigit())
            or int(top.text) >= int(bottom.text)
        ):  # fmt: skip
            raise UnreadableError("two numbers side by side")
        self.position += 3
        return Node("add", parts=(whole, number(Fraction(int(top.text), int(bottom.text)))))

    def is_primed_number(self) -> bool:
        return self.sees("'", ahead=1) or (self.sees("^", ahead=1) and self.sees("'", "{", ahead=2))

    def minutes(self) -> Node:
        node = self.factor()
        if node.head != "prime":
            raise UnreadableError("a number after an angle")
        scale = number(60 if node.text == "'" else 3600)
        return Node("div", parts=(node.parts[0], scale))

    def signed_factor(self) -> Node:
        if self.accept("-"):
            return Node("neg", parts=(self.signed_factor(),))
        self.accept("+")
        return self.factor()

    def starts_factor(self) -> bool:
        token = self.peek()
        if token is None:
            return False
        if token.kind in ("num", "word"):
            return True
        if token.kind == "op":
            return token.text in ("(", "[", "{", r"\{") or (token.text == "|" and self.bars == 0)
        return token.text in FUNCTIONS or token.text in _ATOMS

    def factor(self) -> Node:
        base = self.postfix(self.atom())
        if not self.accept("^"):
            return base
        if self.accept("{"):
            if self.sees("degree", "circ", "'"):
                return self.closing_mark(base, braced=True)
            exponent = self.expression()
            self.expect("}")
        elif self.sees("degree", "circ", "'"):
            return self.closing_mark(base, braced=False)
        elif self.accept("-"):
            exponent = Node("neg", parts=(self.postfix(self.atom()),))
        else:
            exponent = self.atom()
        return self.postfix(Node("pow", parts=(base, exponent)))

    def closing_mark(self, base: Node, *, braced: bool) -> Node:
        mark = ""
        while self.sees("degree", "circ", "'"):
            mark += "'" if self.take().text == "'" else "o"
        if braced:
            self.expect("}")
        if mark == "o":
            return Node("degree", parts=(base,))
        return self.primed(base, mark)

    def primed(self, base: Node, mark: str) -> Node:
        if base.head == "var":
            return Node("var", base.text + mark)
        if base.head == "num" and mark in ("'", "''"):
            return Node("prime", mark, (base,))
        raise UnreadableError(f"{mark!r} after an expression")

    def postfix(self, node: Node) -> Node:
        while True:
            if self.accept("!"):
                node = Node("fn", "factorial", (node,))
            elif self.sees("degree"):
                self.position += 1
                node = Node("degree", parts=(node,))
            elif self.sees("'"):
                mark = ""
                while self.accept("'"):
                    mark += "'"
                node = self.primed(node, mark)
            elif self.sees("_") and node.head in ("var", "num"):
                self.position += 1
                below = self.raw_argument()
                node = Node("var", f"{node.text or self.tokens[self.position - 2].text}_{below}")
            else:
                return node

    def raw_argument(self) -> str:
        """The words of an index, which is compared and never computed."""
        if not self.accept("{"):
            return self.take().text
        words: list[str] = []
        depth = 1
        while True:
            token = self.take()
            depth += (token.text == "{") - (token.text == "}")
            if depth == 0:
                return " ".join(words) if len(words) > 1 else "".join(words)
            words.append(token.text)

    def argument(self) -> Node:
        r"""`{12}` or, as TeX reads `\frac12`, one digit, letter or command."""
        if self.accept("{"):
            node = self.expression()
            self.expect("}")
            return node
        token = self.peek()
        if token is not None and token.kind in ("num", "word") and len(token.text) > 1:
            head, tail = token.text[0], token.text[1:]
            if not (head.isalnum() and tail.isalnum()):
                raise UnreadableError(f"{token.text!r} where one digit is meant")
            rest = Token(
                token.kind, tail, 0, token.in_text, Fraction(tail) if tail.isdigit() else None
            )
            self.tokens[self.position] = rest
            return number(int(head)) if token.kind == "num" else Node("var", head)
        return self.atom()

    def group(self, closing: tuple[str, ...]) -> tuple[list[Node], str]:
        bars, self.bars = self.bars, 0
        members: list[Node] = []
        if not self.sees(*closing):
            members.append(self.ratio_or_union())
            while self.accept(",", ";"):
                members.append(self.ratio_or_union())
        for text in closing:
            if self.accept(text):
                self.bars = bars
                return members, text
        raise UnreadableError("a bracket that does not close")

    def atom(self) -> Node:
        token = self.take()
        if token.kind == "num":
            decimal = token.text if "." in token.text or "e" in token.text.lower() else ""
            return Node("num", decimal if "\\" not in token.text else "", value=token.value)
        if token.kind == "word":
            return self.letters(token)
        if token.text in FUNCTIONS:
            return self.function(token.text)
        match token.text:
            case "(" | "[":
                members, closing = self.group((")", "]"))
                if len(members) == 1 and (token.text + closing) in ("()", "[]"):
                    return members[0]
                if not members:
                    raise UnreadableError("empty brackets")
                return Node("tuple", token.text + closing, tuple(members))
            case "{":
                members, _ = self.group(("}",))
                if len(members) != 1:
                    raise UnreadableError("braces around a list")
                return members[0]
            case r"\{":
                members, _ = self.group((r"\}",))
                return Node("set", parts=tuple(members))
            case "|":
                self.bars += 1
                inside = self.expression()
                self.bars -= 1
                self.expect("|")
                return Node("fn", "abs", (inside,))
            case "lfloor" | "lceil":
                inside = self.expression()
                self.expect("r" + token.text[1:])
                return Node("fn", token.text[1:], (inside,))
            case "frac":
                top = self.argument()
                return Node("div", parts=(top, self.argument()))
            case "binom":
                top = self.argument()
                return Node("fn", "binom", (top, self.argument()))
            case "sqrt":
                return self.root()
            case "begin":
                return self.matrix()
        if token.text in _BIG:
            return self.big(token.text)
        if token.text in _ACCENTS:
            return Node("var", f"{token.text} {self.raw_argument()}")
        if token.text in _FIGURES:
            return self.figure(token.text)
        if token.kind == "cmd" and token.text in _GREEK:
            return Node("var", "\\" + token.text)
        raise UnreadableError(f"{token.text!r} is no expression")

    def letters(self, token: Token) -> Node:
        text = token.text
        if len(text) == 1:
            return Node("var", text)
        is_row = all(ord(b) - ord(a) == 1 for a, b in itertools.pairwise(text))
        if is_language_word(token) and not is_row:
            raise UnreadableError(f"the word {text!r}")
        if text.isupper():
            return Node("var", text if _ROMAN.issuperset(text) else min(text, text[::-1]))
        if token.in_text:
            raise UnreadableError(f"the word {text!r}")
        # Only the last letter carries an index or a power: the others are put back before it.
        self.position -= 1
        self.tokens[self.position] = Token("word", text[1:], 0, False)
        return Node("var", text[0])

    def figure(self, name: str) -> Node:
        if self.accept("{"):
            token = self.take()
            self.expect("}")
        else:
            token = self.take()
        if token.kind not in ("num", "word"):
            raise UnreadableError(f"\\{name} of nothing")
        return Node("var", f"{name} {min(token.text, token.text[::-1])}")

    def root(self) -> Node:
        index = number(2)
        if self.accept("["):
            index = self.expression()
            self.expect("]")
        if self.sees("("):
            self.take()
            inside = self.expression()
            self.expect(")")
        else:
            inside = self.argument()
        return Node("fn", "root", (inside, index))

    def function(self, name: str) -> Node:
        base: Node | None = None
        power: Node | None = None
        while self.sees("_", "^"):
            if self.take().text == "_":
                base = self.argument()
            elif self.accept("{"):
                power = self.expression()
                self.expect("}")
            elif self.accept("-"):
                power = Node("neg", parts=(self.atom(),))
            else:
                power = self.atom()
        if (
            power is not None and power.head == "neg" and power.parts[0].value == 1 and name in _INVERSES
        ):  # fmt: skip
            name, power = _INVERSES[name], None
        if self.sees("(", "[", "{"):
            inside = self.postfix(self.atom())
            if self.sees("^") and inside.head != "tuple":
                # `\sin(x)^2` is read both ways by people: refuse to guess.
                raise UnreadableError("a power after a function's bracket")
            if inside.head == "tuple":
                raise UnreadableError("a function of several arguments")
        else:
            inside = self.function_argument()
        parts = (inside,) if base is None else (inside, base)
        node = Node("fn", name, parts)
        return node if power is None else Node("pow", parts=(node, power))

    def function_argument(self) -> Node:
        if self.accept("-"):
            return Node("neg", parts=(self.function_argument(),))
        if self.peek() is not None and self.peek().text in FUNCTIONS:  # type: ignore[union-attr]
            return self.factor()
        result = self.factor()
        while self.starts_factor() and not self.starts_outside_function():
            before, following = self.tokens[self.position - 1], self.take()
            self.position -= 1
            if following.kind == "num" and (before.kind == "num" or before.text not in ")]}"):
                raise UnreadableError("a number after a letter")
            result = self.times(before, following, result)
        return result

    def starts_outside_function(self) -> bool:
        token = self.peek()
        return token is not None and (
            token.text in FUNCTIONS or token.text in ("(", "[", r"\{", "|")
        )

    def big(self, name: str) -> Node:
        r"""A sum, integral or limit: its bounds as words, and everything that follows in its term."""
        marks = []
        while self.sees("_", "^"):
            marks.append(f"{self.take().text}{self.raw_argument()}")
        body = [self.term()] if self.starts_factor() else []
        return Node("opaque", name + " ".join(sorted(marks)), tuple(body))

    def matrix(self) -> Node:
        kind = self.environment()
        if kind not in _MATRICES:
            raise UnreadableError(f"environment {kind!r}")
        bars, self.bars = self.bars, 0
        rows: list[Node] = []
        cells: list[Node] = []
        while True:
            if self.sees("end"):
                if cells:
                    rows.append(Node("row", parts=tuple(cells)))
                break
            cells.append(self.expression())
            if self.accept("&"):
                continue
            if self.accept(r"\\") or self.sees("end"):
                rows.append(Node("row", parts=tuple(cells)))
                cells = []
                continue
            raise UnreadableError("a cell that does not end")
        self.expect("end")
        self.environment()
        self.bars = bars
        is_plain = kind not in ("vmatrix", "Vmatrix", "cases")
        return Node("matrix", "" if is_plain else kind, tuple(rows))

    def environment(self) -> str:
        self.expect("{")
        name = self.take().text
        self.accept("*")
        self.expect("}")
        return name


_ATOMS = (
    _GREEK | _ACCENTS | _BIG | _FIGURES | {"frac", "binom", "sqrt", "begin", "lfloor", "lceil"}
)  # fmt: skip
