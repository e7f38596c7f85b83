r"""Whether two answers say the same: the first half of the combined grader.

What the choices are, and why, is in `docs/graders.md`.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

from papo.rewards.answer_forms import (
    FLIPPED,
    Answer,
    Member,
    Quantity,
    number_readings,
    read_answer,
)
from papo.rewards.answer_tokens import answer_tokens
from papo.rewards.exact_value import all_of, dump, equal, has_variables, matches, proportional
from papo.rewards.expression import Node, number
from papo.rewards.intervals import same_intervals
from papo.rewards.latex_tokens import Token, UnreadableError, spelling, text_of
from papo.rewards.options import chosen_option, option_letters, option_list

_MAX_MEMBERS = 24


_HOLDS_A_NUMBER = re.compile(r"(?:^|[ ${=+\-*/(,])[0-9]")


def same_answer(given: str, truth: str) -> bool | None:
    """Returns whether an answer says what the reference says; None where that cannot be computed."""
    if given == truth and _HOLDS_A_NUMBER.search(truth):
        return True  # most right answers; the others may be option letters, empty or missing
    try:
        given_tokens, truth_tokens = answer_tokens(given), list(_cached_tokens(truth))
    except UnreadableError:
        return " ".join(given.split()) == " ".join(truth.split())
    if not given_tokens or not truth_tokens or _is_missing(truth_tokens):
        return False
    letters = option_letters(truth_tokens)
    if len(letters) == 1:
        return chosen_option(text_of(given_tokens)) == letters
    if spelling(given_tokens) == spelling(truth_tokens):
        return True
    if letters:
        return option_list(text_of(given_tokens)) == letters
    try:
        verdicts = [
            _same_members(read_answer(first, given), read_answer(second, truth))
            for first, second in number_readings(given_tokens, truth_tokens)
        ]
    except RecursionError:  # hundreds of factors or signs: no answer that a person wrote
        return False
    return True if True in verdicts else None if None in verdicts else False


def leaves(text: str) -> Counter[str]:
    """Returns the words and signs of an answer but braces, each as often as it stands there."""
    try:
        tokens = answer_tokens(text)
    except UnreadableError:
        return Counter([text])
    return Counter(token.text for token in tokens if token.text not in ("{", "}", "*"))


_DECIMAL_COMMA = re.compile(r"\s*[-−]?\d+,\d+\s*")
_THOUSANDS = re.compile(r"\s*[-−]?[1-9]\d{0,2},\d{3}\s*")
_DECIMAL = re.compile(r"\s*\$?[-−]?\d+\.\d+\$?\s*")


def without_decimal_comma(given: str, truth: str) -> str:
    """0,5 is 0.5 only beside a reference that is a decimal number; else it may be a list or thousands."""
    if (
        _DECIMAL_COMMA.fullmatch(given)
        and _DECIMAL.fullmatch(truth)
        and not _THOUSANDS.fullmatch(given)
    ):
        return given.replace(",", ".")
    return given


@lru_cache(maxsize=4096)
def _cached_tokens(text: str) -> tuple[Token, ...]:
    """The tokens of a reference, which many responses are compared with."""
    return tuple(answer_tokens(text))


def _is_missing(tokens: list[Token]) -> bool:
    """A reference that was no answer: what a table's reader makes of an empty cell."""
    return len(tokens) == 1 and tokens[0].text.casefold() == "nan"


def _same_members(given: Answer, truth: Answer) -> bool | None:
    if not given.members or not truth.members:
        return False
    if {given.separators, truth.separators} == {frozenset({"or"}), frozenset({"and"})} and not all(
        _is_value(member) for member in truth.members
    ):
        return False
    as_intervals = same_intervals(given, truth)
    if as_intervals is not None:
        return as_intervals
    givens, truths = given.members, truth.members
    if len(givens) != len(truths):
        return False
    if len(truths) > _MAX_MEMBERS:
        return None
    if len(truths) == 1:
        return _same_member(givens[0], truths[0])
    for named, other in ((givens, truths), (truths, givens)):
        names = [member.name for member in named]
        if None not in names and len(set(names)) == len(names) and not any(m.name for m in other):
            return all_of(map(_same_member, givens, truths))
    return matches(givens, truths, _same_member)


def _same_member(given: Member, truth: Member) -> bool | None:
    if given.words == truth.words:
        return True
    if not given.sides or not truth.sides:
        return False
    given_value, truth_value = _single_value(given), _single_value(truth)
    if given_value is not None and truth_value is not None:
        verdict = _same_names(given.name, truth.name) and _same_quantity(given_value, truth_value)
        if given.relations and truth.relations and given.name is None and truth.name is None:
            # Two identities say the same when their left sides do: cos(pi) = -1 is not sin(-pi/2) = -1.
            return verdict and dump(given.sides[0].node) == dump(truth.sides[0].node)
        if verdict is True or not given.relations or not truth.relations:
            return verdict
    if not given.relations or not truth.relations or _is_solved(given) != _is_solved(truth):
        return False
    return _same_relation(given, truth)


def _is_value(member: Member) -> bool:
    """Whether "1 and 2" means what "1 or 2" does: two solutions, but not two inequalities or two words."""
    return bool(member.sides) and set(member.relations) <= {"="}


def _is_solved(member: Member) -> bool:
    """Whether it says what a variable is: `x = 3`, `x - 3 = 0`, `x > 3`, and not `2x + 4 = 10`.

    Who repeats the equation of a problem has not solved it.
    """
    nodes = [side.node for side in member.sides]
    unknown = [node for node in nodes if has_variables(node)]
    if len(unknown) != 1:
        return False
    (node,) = unknown
    rest = [other for other in nodes if other is not node]
    if node.head == "add" and len(node.parts) == 2 and [other.value for other in rest] == [0]:
        varying = [part for part in node.parts if has_variables(part)]
        return len(varying) == 1 and varying[0].head == "var"
    return node.head == "var"


def _single_value(member: Member) -> Quantity | None:
    """The value of `x = 2 + 3 = 5`, `2 + 3 = 5` or `5`; None of `x = x = 3`, `3 = 4`, `x \\ne 3`."""
    if not member.relations:
        return member.sides[0]
    if member.relations == ("in",) and member.name:
        return member.sides[1]
    if set(member.relations) != {"="}:
        return None
    sides = member.sides[1:] if member.name else member.sides
    if member.name and any(_mentions(side.node, member.name) for side in sides):
        return None
    if all(_same_quantity(side, sides[-1]) for side in sides[:-1]):
        return next((side for side in reversed(sides) if side.unit), sides[-1])
    return None


def _mentions(node: Node, name: str) -> bool:
    return name in {text.replace("\\", "").replace(" ", "") for text in node.names()}


def _same_names(given: str | None, truth: str | None) -> bool:
    """x is not y; a name may be missing; y is f(x), and A is A(t)."""
    if given is None or truth is None or given == truth:
        return True
    if given.startswith("(") or truth.startswith("("):
        return False
    given_head, given_call = _call(given)
    truth_head, truth_call = _call(truth)
    if given_head == truth_head:
        return not (given_call and truth_call)
    return bool(given_call) != bool(truth_call) and "y" in (given, truth)


def _call(name: str) -> tuple[str, str]:
    head, _, variables = name.partition("(")
    return head, variables


def _same_quantity(given: Quantity, truth: Quantity) -> bool | None:
    if given.unit and truth.unit and given.unit != truth.unit:
        return False
    verdict = equal(given.node, truth.node)
    if verdict is True or given.unit == truth.unit:
        return verdict
    # 50% is 50 by the dropped sign (above) and 0.5 by its meaning (here).
    if given.unit == "percent":
        return equal(Node("div", parts=(given.node, number(100))), truth.node)
    if truth.unit == "percent":
        return equal(given.node, Node("div", parts=(truth.node, number(100))))
    return verdict


def _same_relation(given: Member, truth: Member) -> bool | None:
    if len(given.relations) != len(truth.relations):
        return False
    verdicts = []
    for sides, relations in _directions(given):
        if relations != truth.relations:
            continue
        if len(relations) == 1:
            if relations[0] not in FLIPPED:
                verdict = all_of(map(_same_quantity, sides, truth.sides))
            else:
                left, right = (
                    Node("add", parts=(pair[0].node, Node("neg", parts=(pair[1].node,))))
                    for pair in (sides, truth.sides)
                )
                verdict = proportional(left, right, positive=relations[0] not in ("=", "ne"))
                if verdict is None:
                    verdict = all_of(map(_same_quantity, sides, truth.sides))
        else:
            verdict = all_of(map(_same_quantity, sides, truth.sides))
        verdicts.append(verdict)
    return True if True in verdicts else None if None in verdicts else False


def _directions(member: Member) -> Iterator[tuple[tuple[Quantity, ...], tuple[str, ...]]]:
    yield member.sides, member.relations
    if all(relation in FLIPPED for relation in member.relations):
        yield (
            member.sides[::-1],
            tuple(FLIPPED[relation] for relation in reversed(member.relations)),
        )
