"""Which facts of annotated diagrams are misread: the rules' findings by kind."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from papo.analysis.errors.taxonomy import ErrorCategory, ErrorLabel

_KINDS = {
    "Equals(LengthOf(": "a length",
    "Equals(MeasureOf(Angle(": "an angle",
    "Equals(MeasureOf(Arc(": "an arc",
    "gives no such value": "a value that the diagram does not give",
    "has a point": "a point that does not exist",
    "perpendicular": "parallel or perpendicular lines",
    "parallel": "parallel or perpendicular lines",
    "the lines meet": "parallel or perpendicular lines",
}
"""Words of the rules' evidence (papo.analysis.errors.labellers.geometry.labels) -> what was misread."""
_MAX_QUOTE = 80
_MAX_EVIDENCE = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class MisreadFact:
    """A kind of fact, how often each run misread it, and one example in the rules' words."""

    kind: str
    runs: Mapping[str, int]
    quote: str
    evidence: str


def misread_facts(labels: Sequence[ErrorLabel], runs: Sequence[str]) -> tuple[MisreadFact, ...]:
    """Returns for each kind of fact how often each run misread it and one example, commonest first.

    Args:
        labels: of the rules on annotated diagrams.
        runs: names.
    """
    found: dict[str, list[ErrorLabel]] = {}
    for label in labels:
        if label.category is ErrorCategory.PERCEPTION:
            kind = next(
                (kind for words, kind in _KINDS.items() if words in label.evidence), "other"
            )
            found.setdefault(kind, []).append(label)
    return tuple(
        MisreadFact(
            kind=kind,
            runs={run: Counter(label.run for label in of_kind)[run] for run in runs},
            quote=" ".join(of_kind[0].quote.split())[:_MAX_QUOTE],
            evidence=of_kind[0].evidence[:_MAX_EVIDENCE],
        )
        for kind, of_kind in sorted(found.items(), key=lambda entry: -len(entry[1]))
    )
