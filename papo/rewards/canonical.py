r"""One spelling for answers that are written in many: the first half of the combined grader.

Everything here works on strings: no expression is built and nothing is computed. What the choices
are, and why, is in `docs/graders.md`.
"""

import re

_CHARACTERS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-",
        "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "∕": "/",
        "π": r"\pi ", "°": r"^\circ ", "∞": r"\infty ", "∠": r"\angle ", "△": r"\triangle ",
        "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ",
        "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "±": r"\pm ",
        "²": "^2", "³": "^3", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}",
        "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\u200b": "", "\ufeff": "",
        "，": ",", "。": ".", "：": ":", "；": ";", "（": "(", "）": ")", "％": "%",
        "€": "", "£": "", "¥": "",
    }
)  # fmt: skip

_WRAPPERS = r"text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|operatorname|boxed|mbox|bm|rm"
_WRAPPED = re.compile(rf"\\(?:{_WRAPPERS})\s*\{{([^{{}}]*)\}}")
_UNICODE_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|[A-Za-z]))")
_SENTENCE = re.compile(r".*\b(?:is|are|equals)\b:?\s+(\S.*)", re.IGNORECASE | re.DOTALL)
_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:(?:,|\{,\}|\\,|\\!|,\\!|\\;|\\ )\d{3})+(?![\d,])")
_SCIENTIFIC = re.compile(r"([+-]?\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})")
_RATIO = re.compile(r"(\d+(?:\.\d+)?)\s*(?::|\\colon)\s*(\d+(?:\.\d+)?)")
_MAGNITUDES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_MAGNITUDE = re.compile(rf"(\d)\s*({'|'.join(_MAGNITUDES)})\b", re.IGNORECASE)


def canonicalise(text: str) -> str:
    r"""Returns the answer in plain LaTeX: no wrapper, no Unicode operator, no thousands separator.

    `4√3` becomes `4\sqrt{3}`, `1{,}234` becomes `1234`, `3e8` becomes `3\times 10^{8}`, `\text{The
    answer is } 4` becomes `4`.
    """
    text = text.translate(_CHARACTERS)
    text = _UNICODE_ROOT.sub(lambda m: r"\sqrt{" + (m[1] or m[2] or m[3] or "") + "}", text)
    text = text.replace(r"\$", "").replace("$", "").replace(r"\%", "%").replace("~", " ")
    text = re.sub(r"\\(?:left|right|displaystyle|limits)(?![A-Za-z])", "", text)
    text = re.sub(r"\\[dt]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r"\*\*(?=[^*]*\*\*)|\\[()\[\]]|(?<=[^*])\*\*$", "", text)
    text = _THOUSANDS.sub(lambda m: re.sub(r"\D", "", m[0]), text)
    text = re.sub(r"\\(?:quad|qquad)(?![A-Za-z])|\\[,;:! ]", " ", text)
    for _ in range(3):
        text = _WRAPPED.sub(r" \1 ", text)
    text = " ".join(text.split()).rstrip(".").strip()
    if sentence := _SENTENCE.fullmatch(text):
        text = sentence[1]
    text = _MAGNITUDE.sub(lambda m: rf"{m[1]}\times 10^{{{_MAGNITUDES[m[2].lower()]}}}", text)
    if number := _SCIENTIFIC.fullmatch(text):
        text = rf"{number[1]}\times 10^{{{int(number[2])}}}"
    if ratio := _RATIO.fullmatch(text):
        text = rf"\frac{{{ratio[1]}}}{{{ratio[2]}}}"
    while _is_parenthesised(text):
        text = text[1:-1].strip()
    return text


def _is_parenthesised(text: str) -> bool:
    """True if one pair of parentheses holds the whole text, and the text is no point or interval."""
    if not (text.startswith("(") and text.endswith(")")) or "," in text:
        return False
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return index == len(text) - 1
    return False


_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s*:?\s*)?"
    r"(?:\(\s*([A-J])\s*\)(?:[.:]|\s|$).*|([A-J])\s*(?:[.:)]\s*.*)?)",
    re.IGNORECASE | re.DOTALL,
)
_LETTER_LIST = re.compile(r"[A-J](?:\s*(?:,|;|&|\band\b|\s)\s*(?:and\s+)?[A-J])+", re.IGNORECASE)


def choice_letter(text: str) -> str | None:
    r"""Returns the option letter A to J that an answer names: `B`, `(B) 12`, `B. 12`, `Option B`."""
    match = _CHOICE.fullmatch(text.strip())
    return (match[1] or match[2]).upper() if match else None


def choice_letters(text: str) -> frozenset[str] | None:
    """Returns the option letters of a list such as `A, C`, `(A) and (C)`, `AC`; None if it is none."""
    text = text.replace("(", " ").replace(")", " ").strip()
    if re.fullmatch(r"[A-J]{1,10}", text) and len(set(text)) == len(text):
        return frozenset(text)
    if _LETTER_LIST.fullmatch(text):
        return frozenset(re.sub(r"\band\b|[^A-Ja-j]", "", text, flags=re.IGNORECASE).upper())
    return None


def is_letter_list(text: str) -> bool:
    """True if a reference lists several option letters with separators (`AC` may be a segment)."""
    return bool(_LETTER_LIST.fullmatch(text)) and text == text.upper()


_OPENING, _CLOSING = "([{", ")]}"
_SET = re.compile(r"\\\{(.*)\\\}", re.DOTALL)
_JOINED = re.compile(r"(?<![A-Za-z\\])(?:or|and)(?![A-Za-z])")
_PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])")


def split_list(text: str) -> list[str]:
    r"""Returns the members of an unordered list or set: `1, 2`, `\{1, 2\}`, `x=1 or x=2`, `\pm 3`.

    A point, an interval or any other single answer is a list of one.
    """
    if enclosed := _SET.fullmatch(text):
        text = enclosed[1]
    text = _JOINED.sub(",", text)
    members, depth, start = [], 0, 0
    for index, character in enumerate(text):
        if character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth -= 1
        elif character in ",;" and depth == 0:
            members.append(text[start:index].strip())
            start = index + 1
    members.append(text[start:].strip())
    members = [member for member in members if member]
    if len(members) == 1 and len(_PLUS_MINUS.findall(text)) == 1:
        # In front, the plus of "\pm 3" would only be in the way of comparing names and units.
        plus = "" if text.startswith(r"\pm") else "+"
        return [_PLUS_MINUS.sub(plus, text).strip(), _PLUS_MINUS.sub("-", text).strip()]
    return members


_EQUALS = re.compile(r"(?<![<>!\\])=")
_NAME = re.compile(
    r"(?:\\(?:angle|triangle|overline|theta|alpha|beta|gamma)\s*|m\s*\\angle\s*)?"
    r"\{?[A-Za-z]{0,4}\}?'?(?:_\{?\w{1,3}\}?)?(?:\([A-Za-z]\))?"
)


def split_assignment(text: str) -> tuple[str | None, str]:
    r"""Returns (name, value) of `x = 2 + 3 = 5` or `\angle ABC = 40`: ("x", "5"), ("\angle ABC", "40").

    The name is None where the left side is no name; then the text is returned whole.
    """
    sides = [side.strip() for side in _EQUALS.split(text)]
    if len(sides) > 1 and sides[-1] and sides[0] and _NAME.fullmatch(sides[0]):
        return "".join(sides[0].split()), sides[-1]
    return None, text


def last_side(text: str) -> str:
    """Returns what follows the last equals sign: the value of `2 + 3 = 5` is `5`."""
    return _EQUALS.split(text)[-1].strip() or text


_UNIT_NAMES = {
    "mm": "mm millimeter millimeters millimetre millimetres",
    "cm": "cm centimeter centimeters centimetre centimetres",
    "dm": "dm decimeter decimeters",
    "m": "m meter meters metre metres",
    "km": "km kilometer kilometers kilometre kilometres",
    "in": "inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard yards",
    "mi": "mi mile miles",
    "s": "s sec second seconds",
    "min": "min minute minutes",
    "h": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years",
    "mg": "mg milligram milligrams",
    "g": "g gram grams",
    "kg": "kg kilogram kilograms",
    "lb": "lb lbs",
    "ml": "mL ml milliliter milliliters",
    "l": "L liter liters litre litres",
    "degree": "degree degrees deg",
    "dollar": "dollar dollars USD usd",
    "cent": "cent cents",
    "unit": "unit units",
    "km/h": "km/h kmh kph",
    "m/s": "m/s",
    "mph": "mph",
    "N": "N newton newtons",
    "J": "J joule joules",
    "W": "W watt watts",
    "percent": "percent",
}
_UNIT_OF = {name: unit for unit, names in _UNIT_NAMES.items() for name in names.split()}
_UNIT_PATTERN = "|".join(sorted(map(re.escape, _UNIT_OF), key=len, reverse=True))
# A letter straight after a digit may be a variable (5m): a short unit needs a space before it.
_WITH_UNIT = re.compile(
    rf"(?P<value>.*[\d)}}])"
    rf"(?:\s+(?P<power>square|cubic|sq\.?|cu\.?)?\s*(?P<unit>{_UNIT_PATTERN})|(?P<glued>mm|cm|km|kg|mL|mph))"
    r"\s*(?:\^\s*\{?\s*(?P<exponent>[23])\s*\}?)?\.?",
    re.DOTALL,
)
_DEGREES = re.compile(r"(.*?)\s*\^\s*\{?\s*\\circ\s*\}?", re.DOTALL)


def split_unit(text: str) -> tuple[str, str | None]:
    r"""Returns (value, unit): `12 cm` is ("12", "cm"), `30^\circ` is ("30", "degree"), `7` ("7", None).

    Squares and cubes belong to the unit: `12 cm^2` and `12 square centimeters` are ("12", "cm^2").
    """
    text = text.strip()
    if text.endswith("%"):
        return text[:-1].strip(), "percent"
    if degrees := _DEGREES.fullmatch(text):
        return degrees[1], "degree"
    if match := _WITH_UNIT.fullmatch(text):
        unit = _UNIT_OF[match["unit"] or match["glued"]]
        exponent = match["exponent"]
        if match["power"]:
            exponent = "2" if match["power"].startswith("sq") else "3"
        return match["value"].strip(), unit + (f"^{exponent}" if exponent else "")
    return text, None


_FUNCTION_WORDS = frozenset(
    {"sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "log", "exp", "sqrt"}
    | {"max", "min", "lim", "mod", "gcd", "lcm", "det"}
    | {"begin", "end", "pmatrix", "bmatrix", "vmatrix", "matrix", "array", "cases"}
)
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")


def has_words(text: str) -> bool:
    """True if the text holds words of language. A point name (ABC) is none, nor is a function."""
    return any(
        word.lower() not in _FUNCTION_WORDS and not word.isupper() for word in _WORD.findall(text)
    )


def plain(text: str) -> str:
    """Returns the text in lower case without spaces and braces: equal strings, equal answers."""
    return re.sub(r"[\s{}]+", "", text).casefold()
