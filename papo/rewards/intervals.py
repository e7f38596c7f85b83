"""Inequalities as intervals: which numbers an answer leaves to a variable."""

from dataclasses import dataclass

from papo.rewards.answer_forms import FLIPPED, Answer, Member
from papo.rewards.exact_value import all_of, equal, matches
from papo.rewards.expression import Node


@dataclass(frozen=True, slots=True)
class _Interval:
    """Bounds, None where there is none, and whether each belongs to it."""

    low: Node | None
    has_low: bool
    high: Node | None
    has_high: bool


def same_intervals(given: Answer, truth: Answer) -> bool | None:
    """Compares an inequality with an interval, or two inequalities; None where neither side is one."""
    if not any(_is_inequality(member) for answer in (given, truth) for member in answer.members):
        return None
    given_read, truth_read = _intervals(given), _intervals(truth)
    if given_read is None or truth_read is None:
        return None
    (given_names, givens), (truth_names, truths) = given_read, truth_read
    if len(given_names | truth_names) > 1:
        return False
    return matches(givens, truths, _same_interval)


def _is_inequality(member: Member) -> bool:
    return bool(member.relations) and set(member.relations) <= {"<", ">", "le", "ge", "ne"}


def _same_interval(given: _Interval, truth: _Interval) -> bool | None:
    if (given.has_low, given.has_high) != (truth.has_low, truth.has_high):
        return False
    verdicts: list[bool | None] = []
    for one, other in ((given.low, truth.low), (given.high, truth.high)):
        if one is None or other is None:
            verdicts.append(one is other)
        else:
            verdicts.append(equal(one, other))
    return all_of(verdicts)


def _intervals(answer: Answer) -> tuple[frozenset[str], list[_Interval]] | None:
    if len(answer.members) > 1 and not answer.is_union:
        return None
    names: frozenset[str] = frozenset()
    found: list[_Interval] = []
    for member in answer.members:
        if _is_inequality(member):
            read = _inequality(member)
            if read is None:
                return None
            names |= {read[0]}
            found += read[1]
            continue
        value = (
            member.sides[-1].node if member.sides and member.relations in ((), ("in",)) else None
        )
        if value is None:
            return None
        if member.name:
            names |= {member.name}
        for node in value.parts if value.head == "union" else (value,):
            if node.head != "tuple" or len(node.parts) != 2:
                return None
            low, high = node.parts
            found.append(
                _Interval(
                    None if _is_infinite(low, -1) else low, node.text[0] == "[",
                    None if _is_infinite(high, 1) else high, node.text[1] == "]",
                )
            )  # fmt: skip
    return names, found


def _is_infinite(node: Node, sign: int) -> bool:
    if sign < 0:
        return node.head == "neg" and _is_infinite(node.parts[0], 1)
    return node.head == "var" and node.text == r"\infty"


def _inequality(member: Member) -> tuple[str, list[_Interval]] | None:
    places = [
        i
        for i, side in enumerate(member.sides)
        if side.node.head == "var" and not _is_infinite(side.node, 1)
    ]
    if len(places) != 1 or len(member.sides) > 3:
        return None
    place = places[0]
    name = member.sides[place].node.text
    low: Node | None = None
    high: Node | None = None
    has_low = has_high = False
    for index, relation in enumerate(member.relations):
        if place not in (index, index + 1):
            return None
        other = member.sides[index + 1 if place == index else index].node
        if name in other.names():
            return None
        facing = relation if place == index else FLIPPED[relation]
        if facing == "ne":
            if len(member.relations) > 1:
                return None
            return name, [
                _Interval(None, False, other, False),
                _Interval(other, False, None, False),
            ]
        if facing in (">", "ge"):
            if low is not None or (index and high is None):
                return None
            low, has_low = other, facing == "ge"
        else:
            if high is not None:
                return None
            high, has_high = other, facing == "le"
    if low is not None and _is_infinite(low, -1):
        low = None
    if high is not None and _is_infinite(high, 1):
        high = None
    return name, [_Interval(low, has_low, high, has_high)]
