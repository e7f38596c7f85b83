"""Labels of Geometry3K responses by rule: what they state against what the diagram is annotated with.

Precise rather than complete: only a plain statement that the annotation refutes counts as misread.
What is derived, assumed, taken back later or cannot be parsed is passed over, and a response without
a finding is labelled "other". docs/error_analysis.md has the measured precision and recall, and
what these rules cannot see.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from papo.analysis.errors.labellers.geometry.facts import Annotation, Facts, Quantity, read_facts
from papo.analysis.errors.labellers.geometry.slips import arithmetic_slips, contradicts_own_answer
from papo.analysis.errors.labellers.geometry.statements import Cue, Statement, read_statements
from papo.analysis.errors.labellers.geometry.values import Value
from papo.analysis.errors.taxonomy import Case, ErrorCategory, ErrorLabel, Exclusion, label_case

# How sure a finding is, as measured on constructed responses (docs/error_analysis.md) and stated there.
CONTRADICTED = 0.9
INVENTED = 0.6

_CAPITALS = re.compile(r"(?<![A-Za-z])[A-Z]'?(?![a-z])|(?<=[A-Z])[A-Z]'?(?![a-z])")
_INTRODUCES = re.compile(
    r"\b(?:let|call|denote|name|draw|construct|extend|drop|foot|midpoint|point|points|center|centre|"
    r"intersect\w*|meet\w*|add|place)\b(?P<after>[^.\n]{0,60})",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One error that a rule found in a response.

    Attributes:
        category: perception, calculation or inconsistency.
        start, end: where it stands.
        evidence: what speaks against it.
        confidence: see `CONTRADICTED` and `INVENTED`.
    """

    category: ErrorCategory
    start: int
    end: int
    evidence: str
    confidence: float


class GeometryLabels:
    """Names the earliest error that the logic forms of a diagram, or arithmetic, refute."""

    name = "geometry"

    def can_label(self, case: Case) -> bool:
        """Whether the case carries annotated facts."""
        truth = case.truth or {}
        return isinstance(truth.get("facts"), list) and isinstance(
            truth.get("text_facts"), list | None
        )

    def label(self, cases: Sequence[Case]) -> list[ErrorLabel | Exclusion]:
        """Returns one label per case; "other" where no rule finds anything."""
        return [self._label(case) for case in cases]

    def _label(self, case: Case) -> ErrorLabel:
        if case.has_no_answer:
            evidence = "cut at the length limit" if case.was_cut else "no final answer was found"
            return label_case(
                case, ErrorCategory.FORMAT, labeller=self.name, confidence=1.0, evidence=evidence
            )
        assert case.truth is not None, "can_label has seen to it"
        assert case.answer is not None, "a case without an answer is a format error"
        findings = find_errors(
            case.response,
            case.truth,
            question=case.question,
            reference=case.reference,
            answer=case.answer,
        )
        if not findings:
            evidence = "no statement contradicts the annotated diagram, and no arithmetic fails"
            return label_case(case, ErrorCategory.OTHER, labeller=self.name, evidence=evidence)
        first = findings[0]
        return label_case(
            case,
            first.category,
            labeller=self.name,
            confidence=first.confidence,
            evidence=first.evidence,
            quote=case.response[first.start : first.end],
        )


def find_errors(
    response: str, truth: Mapping[str, Any], *, question: str, reference: str, answer: str
) -> list[Finding]:
    """Returns what the rules find, in the order in which it stands; the earliest is the label.

    Args:
        response: hostile text.
        truth: with "facts" and, where there are some, "text_facts": lists of logic forms.
        question: of the problem; its points are not invented.
        reference: the right answer.
        answer: the final answer of the response.
    """
    facts = read_facts(truth["facts"], truth.get("text_facts") or [])
    findings = list(perception_findings(response, facts, question=question))
    findings.extend(
        Finding(
            category=ErrorCategory.CALCULATION,
            start=slip.start,
            end=slip.end,
            evidence=f"{slip.text} does not hold",
            confidence=CONTRADICTED,
        )
        for slip in arithmetic_slips(response)
    )
    if not findings and (
        derived := contradicts_own_answer(response, reference=reference, answer=answer)
    ):
        findings.append(
            Finding(
                category=ErrorCategory.INCONSISTENCY,
                start=len(response),
                end=len(response),
                evidence=f"the steps end with {derived}, which is right; the final answer is {answer[:50]}",
                confidence=CONTRADICTED,
            )
        )
    return sorted(findings, key=lambda finding: finding.start)


def perception_findings(response: str, facts: Facts, *, question: str) -> Iterator[Finding]:
    """Yields the readings of the diagram that its annotation refutes or does not know."""
    sides = frozenset(
        name.removeprefix("side ") for name in facts.names if name.startswith("side ")
    )
    statements = read_statements(response, letters=facts.letters, sides=sides)
    confirmed = {
        quantity
        for statement in statements
        if (quantity := _quantity(statement, facts)) and _is_confirmed(statement, quantity, facts)
    }
    known_points = facts.points | set(_CAPITALS.findall(question)) | _introduced_points(response)
    mentioned: set[Quantity] = set()
    for statement in statements:
        quantity = _quantity(statement, facts)
        if quantity is None:
            found = _relation_finding(statement, facts)
        else:
            # Stated rightly somewhere else: then this is a slip of the pen, or was taken back.
            is_first = quantity not in mentioned
            mentioned.add(quantity)
            found = (
                None
                if quantity in confirmed
                else _value_finding(statement, quantity, facts, is_first=is_first)
            )
        if found is None:
            found = _invented_points(statement, facts, known_points)
        if found is not None:
            evidence, confidence = found
            yield Finding(
                category=ErrorCategory.PERCEPTION,
                start=statement.start,
                end=statement.end,
                evidence=evidence,
                confidence=confidence,
            )


_Found = tuple[str, float] | None


def _quantity(statement: Statement, facts: Facts) -> Quantity | None:
    return _object(statement.kind, statement.points, facts)


def _object(kind: str, points: tuple[str, ...], facts: Facts) -> Quantity | None:
    match kind, points:
        case "length", (first, second):
            return facts.length(first, second)
        case "arc", (first, second):
            return facts.arc(first, second)
        case "angle", (first, vertex, second):
            return facts.angle(first, vertex, second)
        case "angle", (name,) if name.isdigit():
            return facts.names.get(f"angle {name}")
        case "angle", (vertex,):
            return facts.angle_at(vertex)
        case "side", (name,):
            return facts.names.get(f"side {name}")
    return None


def _is_confirmed(statement: Statement, quantity: Quantity, facts: Facts) -> bool:
    value = statement.value
    return value is not None and any(
        _agrees(annotation.value, value) for annotation in facts.values.get(quantity, ())
    )


def _agrees(annotated: Value, stated: Value) -> bool:
    return annotated.equals(stated) or annotated.rounds_to(stated)


def _value_finding(
    statement: Statement, quantity: Quantity, facts: Facts, *, is_first: bool
) -> _Found:
    if statement.cue in (Cue.DERIVED, Cue.HYPOTHETICAL):
        return None
    annotations = facts.values.get(quantity, ())
    in_diagram = [annotation for annotation in annotations if annotation.in_diagram]
    if statement.equal_to is not None:
        return _unequal(in_diagram, statement, facts)
    stated = statement.value
    assert stated is not None, "only relations have no value"
    if stated.is_computed or any(_agrees(one.value, stated) for one in annotations):
        return None
    if not in_diagram:
        is_reading = statement.cue is Cue.READING and stated.number is not None and not annotations
        is_on_diagram = quantity[0] != "angle" or _is_named(statement, facts)
        return (
            ("the diagram gives no such value", INVENTED) if is_reading and is_on_diagram else None
        )
    is_misread = {
        # (is a number, annotation is a number)
        (True, True): True,
        (False, False): statement.cue is Cue.READING
        or (is_first and not _is_given_elsewhere(stated, facts) and not _is_remainder(stated)),
    }
    one = in_diagram[0]
    both = (stated.number is not None, one.value.number is not None)
    # A number for an expression may have been solved for, and the other way round be an equation.
    if is_misread.get(both, statement.cue is Cue.READING):
        return f"the diagram has {one.form}", CONTRADICTED
    return None


def _is_named(statement: Statement, facts: Facts) -> bool:
    """Whether the points of the statement are points of the diagram."""
    return all(point in facts.points for point in statement.points)


def _is_given_elsewhere(stated: Value, facts: Facts) -> bool:
    """Whether another quantity has this expression: then they may have been concluded to be equal."""
    return any(one.value.equals(stated) for found in facts.values.values() for one in found)


def _is_remainder(stated: Value) -> bool:
    """Whether the expression is what is left of a right, straight or full angle."""
    return stated.text.lstrip("( ").startswith(("180", "90", "360"))


def _unequal(in_diagram: list[Annotation], statement: Statement, facts: Facts) -> _Found:
    assert statement.equal_to is not None
    other = _object(*statement.equal_to, facts)
    others = [one for one in facts.values.get(other, ()) if one.in_diagram] if other else []
    for one in in_diagram:
        for another in others:
            numbers = one.value.number is not None and another.value.number is not None
            if numbers and not one.value.equals(another.value):
                return f"the diagram has {one.form} and {another.form}", CONTRADICTED
    return None


def _relation_finding(statement: Statement, facts: Facts) -> _Found:
    if statement.kind not in ("parallel", "perpendicular") or statement.cue is Cue.HYPOTHETICAL:
        return None
    a, b, c, d = statement.points
    first, second = facts.line(a, b), facts.line(c, d)
    pair = frozenset((first, second))
    if first == second or statement.cue is Cue.DERIVED or not _is_named(statement, facts):
        return None
    if statement.kind == "parallel":
        if pair in facts.perpendicular:
            return "the diagram has these lines perpendicular", CONTRADICTED
        if common := sorted(first & second):
            return f"the lines meet in {common[0]}", CONTRADICTED
        known = facts.parallel
    else:
        if pair in facts.parallel:
            return "the diagram has these lines parallel", CONTRADICTED
        known = facts.perpendicular
    if statement.cue is Cue.READING and pair not in known:
        return f"the diagram does not mark these lines as {statement.kind}", INVENTED
    return None


def _invented_points(
    statement: Statement, facts: Facts, known: frozenset[str] | set[str]
) -> _Found:
    if statement.cue is Cue.HYPOTHETICAL or statement.kind == "side" or not facts.points:
        return None
    unknown = [point for point in statement.points if point[0].isupper() and point not in known]
    if unknown and (statement.value is None or statement.value.number is not None):
        return f"neither diagram nor question has a point {unknown[0]}", INVENTED
    return None


def _introduced_points(response: str) -> set[str]:
    """Points that the response adds to the diagram in so many words."""
    return {
        point
        for match in _INTRODUCES.finditer(response)
        for point in _CAPITALS.findall(match["after"])
    }
