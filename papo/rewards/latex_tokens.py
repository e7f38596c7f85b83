r"""The words of an answer: LaTeX, Unicode and ASCII spellings as one list of tokens.

Only what is drawn alike is unified here (`\dfrac` and `\frac`, `√` and `\sqrt`, full width and ASCII);
braces, brackets, commas, letters and units all survive.
"""

import re
import unicodedata
from dataclasses import dataclass, replace
from fractions import Fraction

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ", "0123456789+-()n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₍₎", "0123456789+-()")
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ]+")
_LOWERED = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋₍₎]+")
_CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
        "÷": "/", "∕": "/", "⁄": "/", "π": r"\pi ", "°": r"^\circ ", "º": r"^\circ ", "∞": r"\infty ",
        "℃": r"^\circ C", "℉": r"^\circ F", "∠": r"\angle ", "△": r"\triangle ", "√": r"\sqrt ",
        "∥": r"\parallel ", "⊥": r"\perp ", "≅": r"\cong ", "∼": r"\sim ", "→": r"\to ", "…": r"\ldots ",
        "∛": r"\sqrt[3] ", "∜": r"\sqrt[4] ",
        "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ", "μ": r"\mu ",
        "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
        "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "±": r"\pm ", "∅": r"\emptyset ", "′": "'", "″": "''",
        "’": "'", "“": '"', "”": '"', "。": ".", "\u00a0": " ", "\u2009": r"\,", "\u202f": r"\,",
        "\u3000": " ", "\u200b": "", "\ufeff": "", "€": r"\euro ", "£": r"\pound ", "¥": r"\yen ",
        "￥": r"\yen ",
    }
)  # fmt: skip

_ALIASES = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "dbinom": "binom", "tbinom": "binom",
    "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge", "neq": "ne", "lt": "<", "gt": ">",
    "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]", "lvert": "|", "rvert": "|", "vert": "|",
    "colon": ":", "div": "/", "ast": "*", "times": "*", "cdot": "*", "prime": "'", "degree": "degree",
    "dots": "ldots", "cdots": "ldots", "varnothing": "emptyset", "fbox": "boxed", "bullet": "*",
    "lparen": "(", "rparen": ")", "infin": "infty", "arcsec": "arcsec", "overset": "overset",
}  # fmt: skip
_DROPPED = frozenset(
    {
        "displaystyle",
        "textstyle",
        "limits",
        "nolimits",
        "hline",
        "bigl",
        "bigr",
        "Bigl",
        "Bigr",
        "big",
    }
    | {
        "Big",
        "bigg",
        "Bigg",
        "biggl",
        "biggr",
        "middle",
        "left",
        "right",
        "mathstrut",
        "strut",
        "rm",
        "bf",
    }
    | {"it", "mathop", "scriptstyle", "normalsize", "large", "Large", "huge", "Huge"}
)
_TEXT = frozenset({"text", "textbf", "textit", "textrm", "mathrm", "mbox", "operatorname", "textnormal", "textup", "textsf"})  # fmt: skip
_FONT = frozenset({"mathbf", "mathit", "mathsf", "bm", "boldsymbol", "mathnormal"})
TAKES_ARGUMENT = frozenset(
    {"frac", "sqrt", "binom", "overline", "bar", "vec", "hat", "mathbb", "boxed", "begin", "end"}
)
_SPACES = frozenset({"quad", "qquad", "enspace", "thinspace", "hspace"})
_NAMES = {"sqrt": "sqrt", "pi": "pi", "infty": "infty", "infinity": "infty", "inf": "infty", "theta": "theta"}  # fmt: skip
FUNCTIONS = frozenset(
    {
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "arccot",
        "sinh",
        "cosh",
        "tanh",
    }
    | {"ln", "log", "lg", "exp"}
)

_FIRST_GROUP = r"(?<![\d.])[1-9]\d{0,2}"
_SPACED_THOUSANDS = re.compile(
    rf"{_FIRST_GROUP}(?:(?:\{{,\}}|,|\\,|,\\!|\\!|\\;|\\ )\d{{3}})+(?![\d,])"
)
_TOKEN = re.compile(
    r"(?P<row>\\\\(?:\[[^\]]{0,8}\])?)"
    r"|(?P<gap>(?:\\[,;:!> ]|~)+)"
    r"|(?P<escaped>\\[{}|%$&#_()\[\]])"
    r"|\\(?P<cmd>[A-Za-z]+)\*?"
    r"|(?P<repeating>(?P<whole>\d*)\.(?P<fixed>\d*)\\(?:overline|bar|dot)\s*\{?(?P<cycle>\d+)\}?)"
    r"|(?P<number>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,3}(?![A-Za-z\d.]))?)"
    r"|(?P<word>[A-Za-z]+)"
    r"|(?P<foreign>[^\W\d_]+)"
    r"|(?P<space>\s+)"
    r"|(?P<op>.)",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    r"""One word of an answer.

    Args:
        kind: num, word (letters), cmd (`\frac` without its backslash) or op (everything else).
        text: the word itself.
        gap: what stands before it: 0 nothing, 1 white space, 2 a space that LaTeX draws.
        in_text: whether it stood in `\text{}` or the like.
        value: of a number.
    """

    kind: str
    text: str
    gap: int = 0
    in_text: bool = False
    value: Fraction | None = None


class UnreadableError(ValueError):
    """The text is no mathematical expression that this parser knows."""


def tokens_of(text: str) -> list[Token]:
    """Returns the tokens of an answer.

    Raises:
        UnreadableError: braces of a wrapper do not close, or it is nested deeper than anybody writes.
    """
    return _tokens(_characters(text), in_text=False, depth=0)


def _characters(text: str) -> str:
    text = "".join(_one_character(character) for character in text) if not text.isascii() else text
    text = _RAISED.sub(lambda match: "^{" + match[0].translate(_SUPERSCRIPTS) + "}", text)
    text = _LOWERED.sub(lambda match: "_{" + match[0].translate(_SUBSCRIPTS) + "}", text)
    text = text.translate(_CHARACTERS)
    text = re.sub(r"(\\begin\{array\})\s*\{[^{}]*\}", r"\1", text)
    text = re.sub(r"\\sqrt(\[\d+\])?\s+(\d+(?:\.\d+)?)", r"\\sqrt\1{\2}", text)
    text = re.sub(r"(?<=\d)\s?[xX]\s?(?=10\s?\^)", r"\\times ", text)  # 3 x 10^8
    text = re.sub(r"\.\s?\.\s?\.", r"\\ldots ", text)
    text = re.sub(r"(?<![A-Za-z])([AaPp])\.\s?([Mm])(?:\.|(?![A-Za-z]))", r"\1\2", text)
    text = text.strip()
    if text.startswith("**") and text.endswith("**") and len(text) > 4:
        text = text[2:-2]
    text = re.sub(r'(?<=\d)"', "''", text)
    text = (
        text.replace("**", "^").replace("<=", r"\le ").replace(">=", r"\ge ").replace("!=", r"\ne ")
    )
    dollars = len(re.findall(r"(?<!\\)\$", text))
    if dollars % 2 and re.match(r"\$\s*[\d.]", text):
        text = r"\$" + text[1:]
    text = re.sub(r"(?<!\\)\$", " ", text)
    return _SPACED_THOUSANDS.sub(_without_separators, text)


def _without_separators(match: re.Match[str]) -> str:
    """Commas alone may separate a list: whether they do is decided where lists are read."""
    is_list = re.fullmatch(r"[\d,]+", match[0])
    return match[0] if is_list else re.sub(r"\D", "", match[0])


def _one_character(character: str) -> str:
    code = ord(character)
    if 0xFF01 <= code <= 0xFF5E and character != "￥":
        return chr(code - 0xFEE0)
    if 0x2460 <= code <= 0x2473:
        return rf"\textcircled{{{code - 0x245F}}}"
    decomposition = unicodedata.decomposition(character)
    if decomposition.startswith("<fraction>"):
        numerator, _, denominator = unicodedata.normalize("NFKC", character).partition("⁄")
        return rf"\frac{{{numerator}}}{{{denominator}}}" if denominator else character
    return character


def _tokens(text: str, *, in_text: bool, depth: int) -> list[Token]:
    if depth > 6:
        raise UnreadableError("wrappers without end")
    found: list[Token] = []
    position, gap = 0, 0
    while match := _TOKEN.match(text, position):
        position = match.end()
        kind = match.lastgroup if match["repeating"] is None else "repeating"
        part = match[0]
        if kind == "space":
            gap = max(gap, 1)
            continue
        if kind == "gap":
            # `~` is a space of LaTeX; where a value begins it says "about".
            if part[0] == "~" and (not found or found[-1].text in ("=", "(", "[", ",")):
                found.append(Token("op", "~", gap))
            gap = 2
            continue
        token: Token | None
        if kind == "cmd":
            name = match["cmd"]
            if name in _SPACES:
                gap = 2
                continue
            if name in _DROPPED:
                if name in ("left", "right") and (
                    point := re.compile(r"\s*\.").match(text, position)
                ):
                    position = point.end()
                continue
            if name in _TEXT or name in _FONT or name in ("color", "textcolor"):
                if name in ("color", "textcolor"):
                    _, position = _braced(text, position)
                    if name == "color" and not re.compile(r"\s*\{").match(text, position):
                        continue
                content, position = _braced(text, position)
                inner = _tokens(content, in_text=in_text or name in _TEXT, depth=depth + 1)
                if inner:
                    padded = 2 if content[:1] in " ~" else gap
                    inner[0] = replace(inner[0], gap=max(gap, padded))
                    if found and (found[-1].text in "^_" or found[-1].text in TAKES_ARGUMENT):
                        inner = [Token("op", "{"), *inner, Token("op", "}")]
                found += inner
                gap = 2 if content[-1:] in " ~" and content else 0
                continue
            if name in FUNCTIONS or name == "begin" or name == "end":
                token = Token("cmd", name, gap)
            else:
                name = _ALIASES.get(name, name)
                token = Token("cmd" if name.isalpha() else "op", name, gap)
        elif kind == "repeating":
            token = Token("num", part, gap, in_text, _repeating(match))
        elif kind == "number":
            token = Token("num", part, gap, in_text, Fraction(part))
        elif kind == "word":
            token = _word(part, gap, in_text)
        elif kind == "foreign":
            token = Token("word", part, gap, True)
        elif kind == "row":
            token = Token("op", r"\\", gap)
        elif kind == "escaped":
            token = _escaped(part, gap)
        else:
            token = Token("op", part, gap, in_text)
        if token is not None:
            found.append(token)
        gap = 0
    return found


def _word(part: str, gap: int, in_text: bool) -> Token:
    if part in FUNCTIONS and not (in_text and part == "sec"):  # in text, seconds
        return Token("cmd", part, gap, in_text)
    return Token("cmd", _NAMES[part], gap) if part in _NAMES else Token("word", part, gap, in_text)


def _escaped(part: str, gap: int) -> Token | None:
    if part in (r"\(", r"\)", r"\[", r"\]"):
        return None
    if part in (r"\{", r"\}", r"\$"):
        return Token("op", part, gap)
    return Token("op", "|" if part == r"\|" else part[1], gap)


def _braced(text: str, position: int) -> tuple[str, int]:
    """Returns what the next braces hold (or the next character), and where they end."""
    while position < len(text) and text[position].isspace():
        position += 1
    if position >= len(text) or text[position] != "{":
        return text[position : position + 1], position + 1
    depth = 0
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, position):
        depth += (match[0] == "{") - (match[0] == "}")
        if depth == 0:
            return text[position + 1 : match.start()], match.end()
    raise UnreadableError("a brace that does not close")


def _repeating(match: re.Match[str]) -> Fraction:
    whole, fixed, cycle = match["whole"] or "0", match["fixed"], match["cycle"]
    scale = 10 ** len(fixed)
    return Fraction(int(whole + fixed), scale) + Fraction(
        int(cycle), scale * (10 ** len(cycle) - 1)
    )


def text_of(tokens: list[Token]) -> str:
    """Returns tokens as text again, with one space where there was any."""
    return "".join((" " if token.gap else "") + token.text for token in tokens).strip()


def spelling(tokens: list[Token]) -> tuple[str, ...]:
    """Returns what is compared where an answer is no expression: its words, without case.

    Single letters keep their case (`x` is not `X`) unless they stand among words of language.
    """
    is_language = any(is_language_word(token) for token in tokens)
    return tuple(
        token.text.casefold()
        if token.kind == "word" and (is_language or (len(token.text) > 1 and token.in_text))
        else token.text
        for token in tokens
        if not (is_language and token.text in ('"', "'"))
    )


def is_language_word(token: Token) -> bool:
    """Whether a token is a word of language: three letters or more, and no name of a point."""
    return token.kind == "word" and (
        (len(token.text) > 2 and not token.text.isupper())
        or not token.text.isascii()
        or token.text.casefold() == "no"
    )
