"""Option letters: which ones a reference consists of, and which one an answer names."""

import re

from papo.rewards.latex_tokens import Token, text_of

_LETTERS = "A-J"
_CHOICE = re.compile(
    rf"(?:\$|\\\$|\*\*|\s)*(?:\(\s*([{_LETTERS}])\s*\)|\[\s*([{_LETTERS}])\s*\]|([{_LETTERS}])(?=\s*(?:[.:)、]|$)))"
    r"\s*[.:)、*]*\s*(.*)",
    re.DOTALL,
)
_MARKED = re.compile(r"[(\[]\s*[A-Ja-j]\s*[)\]]|(?<![A-Za-z])[A-J]\s*[.:)](?!\d)")
_WORD = re.compile(r"[A-Za-z']+")
# Texts that options have, though their words could take an answer back.
_OPTION_TEXT = re.compile(
    rf"[Nn]o\.?|(?:[Bb]oth|[Nn]either)\s+\(?[{_LETTERS}]\)?\s+(?:and|nor)\s+\(?[{_LETTERS}]\)?\.?"
)
_OR_AN_OPTION = re.compile(r"^\W*or\b|\bor\W*$|\bor\W{0,3}[A-Ja-j]\b(?!\s*[=<>^])")
_SMALL_HEDGE = re.compile(r"\b(?:be|choose|pick|select|maybe|option|choice)\W{1,3}[b-j]\b")
_HEDGES = frozenset(
    {"or", "not", "no", "nor", "but", "actually", "wait", "maybe", "perhaps", "possibly", "instead",
     "rather", "correct", "correction", "answer", "option", "options", "choice", "choices", "either", "both",
     "also", "incorrect", "wrong", "isn't", "don't", "sorry", "otherwise", "alternatively", "hmm", "however",
     "unless", "choose", "chose", "pick", "select", "final", "finally", "guess", "think", "boxed", "could",
     "might", "may", "too"}
)  # fmt: skip
_CONNECTIVES = _HEDGES | frozenset(
    {"and", "is", "it", "the", "a", "to", "an", "if", "then", "so", "be", "could", "might", "may", "as",
     "well"}
)  # fmt: skip


def option_letters(tokens: list[Token]) -> frozenset[str]:
    """Returns the letters A to J that a reference consists of; `AC` may be a segment and is none."""
    text = text_of(tokens).replace("、", ",")
    if re.fullmatch(
        rf"[{_LETTERS}](?:\s*(?:,|;|&|\band\b|\s)\s*(?:and\s+)?\(?[{_LETTERS}]\)?)*", text
    ):
        return frozenset(re.sub(rf"[^{_LETTERS}]", "", text))
    return frozenset()


def chosen_option(text: str) -> frozenset[str] | None:
    """Returns the one option that an answer names, as `B`, `(B) 12`, `B. 12`; None where it names several."""
    if re.fullmatch(r"[a-j]\s*\)?", text):
        return frozenset(text[0].upper())
    match = _CHOICE.fullmatch(text)
    if match is None:
        lower = re.fullmatch(r"\(\s*([a-j])\s*\)(\s+\S.*)?", text, re.DOTALL)
        if lower is None:
            return None
        letter, rest = lower[1].upper(), lower[2] or ""
    else:
        letter, rest = match[1] or match[2] or match[3], match[4]
    if _OPTION_TEXT.fullmatch(rest) and letter not in rest:
        return frozenset(letter)
    words = _WORD.findall(rest)
    lowered = [word.lower() for word in words]
    others = [word for word in words if re.fullmatch(f"[{_LETTERS}]", word)]
    if _MARKED.search(rest) and _MARKED.search(rest)[0].strip("([ ])") != letter:  # type: ignore[index]
        return None
    if words and all(word in _CONNECTIVES or len(word) == 1 for word in lowered):
        return frozenset(letter) if _is_formula(rest, others) else None
    if (others and not _HEDGES.isdisjoint(lowered)) or _SMALL_HEDGE.search(rest):
        return None
    is_taken_back = lowered[:1] in (["is"], ["isn't"], ["no"], ["not"], ["or"], ["wrong"])
    return None if is_taken_back and not _HEDGES.isdisjoint(lowered) else frozenset(letter)


def _is_formula(rest: str, others: list[str]) -> bool:
    """Whether an option's text is mathematics in single letters: `(B) 2x + 1`, and names no option."""
    return (
        not others
        and bool(re.search(r"[\d=+^]", rest))
        and not re.search(r"\b(?:not|no)\b", rest)
        and not _OR_AN_OPTION.search(rest)
    )


def option_list(text: str) -> frozenset[str] | None:
    """Returns the option letters of a list such as `A, C`, `(A) and (C)`, `AC`; None if it is none."""
    text = text.replace("(", " ").replace(")", " ").replace("、", ",").strip()
    if re.fullmatch(rf"[{_LETTERS}]{{1,10}}", text) and len(set(text)) == len(text):
        return frozenset(text)
    if re.fullmatch(r"[A-Ja-j](?:\s*(?:,|;|&|\band\b|\s)\s*(?:and\s+)?[A-Ja-j])*", text):
        return frozenset(re.sub(r"\band\b|[^A-Ja-j]", "", text).upper())
    return None
