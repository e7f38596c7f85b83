r"""Units behind a number: which are the same, and which words are none.

Units are compared and never converted: `1 m` is not `100 cm`.
"""

import re

from papo.rewards.latex_tokens import Token

_NAMES = {
    "mm": "mm millimeter millimetre 毫米",
    "cm": "cm centimeter centimetre cms 厘米",
    "dm": "dm decimeter decimetre 分米",
    "m": "m meter metre 米",
    "km": "km Km kilometer kilometre 千米 公里",
    "nm": "nm nanometer nanometre",
    "in": "in inch inches",
    "ft": "ft foot feet",
    "yd": "yd yard",
    "mi": "mi mile",
    "s": "s sec second 秒",
    "ms": "ms millisecond",
    "min": "min minute mins 分钟",
    "h": "h hr hour hrs 小时",
    "day": "day 天",
    "week": "week wk",
    "month": "month",
    "year": "year yr 年",
    "mg": "mg milligram",
    "g": "g gram 克",
    "kg": "kg Kg kilogram kgs 千克 公斤",
    "t": "t ton tonne 吨",
    "lb": "lb lbs pound",
    "oz": "oz ounce",
    "ml": "mL ml milliliter millilitre 毫升",
    "l": "L l liter litre 升",
    "gal": "gal gallon",
    "degree": "degree deg 度 °",
    "radian": "radian rad",
    "dollar": "dollar USD usd bucks",
    "cent": "cent ¢",
    "euro": "euro EUR",
    "yuan": "yuan 元 yen RMB",
    "unit": "unit",
    "mph": "mph",
    "kph": "kmh kph",
    "N": "N newton",
    "J": "J joule",
    "kJ": "kJ kilojoule",
    "W": "W watt",
    "kW": "kW kilowatt",
    "V": "V volt",
    "A": "A amp ampere",
    "K": "K kelvin",
    "C": "coulomb",
    "T": "T tesla",
    "F": "F farad",
    "Hz": "Hz hertz",
    "Pa": "Pa pascal",
    "mol": "mol mole",
    "percent": "percent %",
    "am": "am AM",
    "pm": "pm PM",
}
_UNIT_OF = {name: unit for unit, names in _NAMES.items() for name in names.split()}
_UNIT_OF |= {name + "s": unit for name, unit in _UNIT_OF.items() if len(name) > 2}
_SPEEDS = {"mph": "h^-1 mi", "kph": "h^-1 km"}
_CURRENCIES = {r"\$": "dollar", "euro": "euro", "pound": "£", "yen": "yuan"}
_POWERS = {
    "square": 2,
    "sq": 2,
    "squared": 2,
    "cubic": 3,
    "cu": 3,
    "cubed": 3,
    "平方": 2,
    "立方": 3,
}
_GLUED = re.compile(r"(square|sq|cubic|平方|立方)(.+)")
_MAGNITUDES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}

# Behind a number these words change what is said: the answer is read as words then.
NO_UNITS = frozenset(
    {"or", "and", "not", "no", "nor", "but", "maybe", "perhaps", "possibly", "actually", "wait", "is", "are",
     "was", "isn", "isnt", "aren", "isn't", "wrong", "false", "incorrect", "correct", "right", "sorry",
     "instead", "rather", "either", "neither", "if", "when", "unless", "because", "since", "where", "below",
     "above", "minus", "plus", "times", "negative", "less", "more", "fewer", "than", "over", "under",
     "about", "approximately", "dozen", "half", "halves", "third", "thirds", "quarter", "quarters", "fourth",
     "fourths", "fifth", "fifths", "sixth", "sixths", "seventh", "sevenths", "eighth", "eighths", "ninth",
     "ninths", "tenth", "tenths", "hundredth", "hundredths", "thousandth", "thousandths", "th", "nd", "rd",
     "st", "per", "score", "pair", "pairs", "to", "from", "between", "through", "till", "until", "answer",
     "option", "choice", "hundred", "thousand", "million", "billion", "trillion", "double", "twice",
     "triple", "squared", "cubed", "root", "factorial", "mod", "base", "ten", "billionth", "millionth",
     "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "eleven", "twelve",
     "cannot", "none", "unknown", "undefined", "any", "all", "every", "should", "would", "could", "might",
     "may", "seems", "likely", "alternatively", "otherwise", "else", "then", "dozens", "gross", "lakh", "lakhs",
     "crore", "crores", "grand", "mil", "fold", "nth", "nths", "eleventh", "elevenths", "twelfth", "twelfths",
     "max", "maximum", "minimum", "approx", "est", "estimated", "ish", "guess", "hopefully", "unsure", "nope",
     "inverse", "reciprocal", "opposite", "imaginary", "complex", "nil"}
)  # fmt: skip
_LATER_PARTS = re.compile(r"[a-z]+(?:teen|tie)ths?")
_CHINESE_NUMERAL = re.compile("[十百千万萬亿億兆半几第]")
_MAX_WORDS = 4


def currency_of(token: Token) -> str | None:
    """Returns the currency that a sign before a number names."""
    return _CURRENCIES.get(token.text) if token.kind in ("op", "cmd") else None


def magnitude_of(token: Token) -> int | None:
    """Returns the power of ten that a word names: 6 for million."""
    return _MAGNITUDES.get(token.text.lower()) if token.kind == "word" else None


def starts_unit(token: Token, *, in_mathematics: bool) -> bool:
    """Whether a unit may begin here, behind a value. `5m` may be a product: one letter needs a space."""
    if token.text in ("%", "degree", "circ"):
        return True
    if token.kind != "word":
        return False
    text = token.text
    if len(text) == 1 and text.isascii():
        is_spaced = token.in_text or token.gap == 2 or (token.gap == 1 and not in_mathematics)
        return text in _UNIT_OF and is_spaced
    return len(text) > 2 or text in _UNIT_OF or not text.isascii() or token.in_text


def read_unit(tokens: list[Token]) -> str | None:
    r"""Returns one name for a unit: `square centimeters`, `cm^2` and `cm2` are "cm^2"; None if it is none."""
    powers: dict[str, int] = {}
    words: list[str] = []
    sign, pending = 1, 1
    position = 0
    last: str | None = None
    while position < len(tokens):
        token = tokens[position]
        position += 1
        if token.text in ("/", "per"):
            if sign < 0:
                return None
            sign = -1
        elif token.text == "^" or token.kind == "num":
            if last is None or last in words:
                return None
            start = position if token.text == "^" else position - 1
            exponent, position = _exponent(tokens, start)
            if exponent is None or powers.get(last) not in (1, -1):
                return None
            powers[last] *= exponent
        elif token.text in ("{", "}", "*", "."):
            continue
        elif token.text in ("%", "degree", "circ"):
            last = "percent" if token.text == "%" else "degree"
            powers[last] = powers.get(last, 0) + sign
        elif token.kind == "word":
            name = token.text
            glued = _GLUED.fullmatch(name)
            if glued and (glued[2] in _UNIT_OF or glued[2].lower() in _UNIT_OF):
                pending, name = _POWERS[glued[1]], glued[2]
            if name.lower() in _POWERS:
                if last is not None and name.lower() in ("squared", "cubed"):
                    powers[last] *= _POWERS[name.lower()]
                else:
                    pending = _POWERS[name.lower()]
                continue
            if name.lower() in NO_UNITS:
                return None
            if powers.get("degree") == 1 and name in ("C", "F"):
                last = "degree" + name
                powers = {last: 1}
                continue
            unit = _UNIT_OF.get(name) or _UNIT_OF.get(name.lower())
            if unit is None:
                if len(name) < 2 or _LATER_PARTS.fullmatch(name.lower()):
                    return None
                if _CHINESE_NUMERAL.match(name) or "分之" in name:
                    return None
                unit = name.casefold().rstrip("s") or name
                words.append(unit)
            if unit in powers or len(powers) >= _MAX_WORDS:
                return None
            powers[unit] = sign * pending
            last, pending = unit, 1
        else:
            return None
    if not powers or pending != 1:
        return None
    if len(powers) == 1 and (name := next(iter(powers))) in _SPEEDS:
        return _SPEEDS[name]
    return " ".join(
        unit + ("" if power == 1 else f"^{power}") for unit, power in sorted(powers.items())
    )


def _exponent(tokens: list[Token], position: int) -> tuple[int | None, int]:
    sign, found = 1, None
    braced = position < len(tokens) and tokens[position].text == "{"
    position += braced
    if position < len(tokens) and tokens[position].text == "-":
        sign, position = -1, position + 1
    if position < len(tokens) and tokens[position].text in ("1", "2", "3"):
        found, position = sign * int(tokens[position].text), position + 1
    if braced:
        if position >= len(tokens) or tokens[position].text != "}":
            return None, position
        position += 1
    return found, position
