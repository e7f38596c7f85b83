"""All that an error analysis counts, as values; summary.json holds the same as JSON.

Not here: who counts (papo.analysis.errors.analysis), and words and tables (papo.analysis.errors.tables).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from papo.analysis.errors.misread_facts import MisreadFact
from papo.analysis.errors.misreadings import ReadingsSummary
from papo.analysis.errors.shares import Agreement, Share
from papo.analysis.errors.taxonomy import ErrorCategory
from papo.analysis.errors.transitions import Discordance, Transitions
from papo.statistics import Interval

Shares = Mapping[ErrorCategory, Share]
"""Of every error category; empty without a label."""

Corrected = Mapping[ErrorCategory, Interval | None]
"""A judge's shares as known labels correct them; None where a group has no known label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunShares:
    """What one labeller says of one run.

    Attributes:
        labelled: cases with a label.
        shares, benchmarks: of all of them, and by benchmark.
        corrected, benchmarks_corrected: the same of a judge that is validated (there); None where not.
    """

    labelled: int
    shares: Shares
    benchmarks: Mapping[str, Shares]
    corrected: Corrected | None
    benchmarks_corrected: Mapping[str, Corrected | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """How many of a judge's labels were compared with known ones, and whether that is enough.

    Attributes:
        checked: of its labels, how many have a known one beside them.
        checked_per_benchmark: of each benchmark with a label.
        unchecked: benchmarks of which none has.
        needed: so many are enough, where every benchmark was checked.
        validated: whether they are.
    """

    checked: int
    checked_per_benchmark: Mapping[str, int]
    unchecked: tuple[str, ...]
    needed: int
    validated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LabellerSummary:
    """What one labeller says.

    Attributes:
        kind: "lab", "human", "geometry" or "judge".
        runs: by the run's name.
        excluded: reason -> cases that it gave no label.
        server_said: the commonest words of a judge's server that gave no reply.
        seconds: that people took, where they were measured.
        validation: of a judge; None of all others.
    """

    kind: str
    runs: Mapping[str, RunShares]
    excluded: Mapping[str, int]
    server_said: tuple[str, ...]
    seconds: float | None
    validation: Validation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """Whose shares stand at the top.

    Attributes:
        labeller: its name; None where nobody's shares are a result.
        basis: what its shares rest on, or why there are none.
    """

    labeller: str | None
    basis: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedErrors:
    """The paper's error analysis.

    Attributes:
        source: where it stands.
        cases: that were labelled.
        perception: share of perception errors.
        perception_reduction_with_papo: by how much they became rarer.
    """

    source: str
    cases: int
    perception: Interval
    perception_reduction_with_papo: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedWith:
    """Parameters of requests to a judge, whether they make it decode greedily, and how many replies they gave."""

    parameters: Mapping[str, Any]
    greedy: bool
    replies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeFacts:
    """What judging took.

    Attributes:
        judge: its name.
        requests: replies that were asked for now and came.
        from_cache: replies that an earlier run had kept.
        prompt_tokens, completion_tokens: of the replies that came now.
        left_out_of_cache: lines of replies.jsonl that hold no reply.
        dollars: for the replies that came now; None where that is not known.
        asked_with: of the requests whose replies were used, kept ones included.
    """

    judge: str
    requests: int
    from_cache: int
    prompt_tokens: int
    completion_tokens: int
    left_out_of_cache: tuple[int, ...]
    dollars: float | None
    asked_with: tuple[AskedWith, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorSummary:
    """All counts, shares, intervals and tests of an analysis.

    Attributes:
        analysis: its id.
        runs: names; the first is what the others are compared with.
        slots_drawn: response slots of the sample.
        wrong: run -> wrong answers in these.
        benchmarks: slots of each.
        right_although_misread: run -> right answers that rest on a wrong reading.
        labellers: by name.
        headline: whose shares are a result.
        agreement: of pairs of labellers with common cases.
        transitions: per labeller and further run.
        readings: of runs that were shown drawn scenes.
        misread_facts: of annotated diagrams.
        published: the paper's numbers.
        judge: what judging took.
    """

    analysis: str
    runs: tuple[str, ...]
    slots_drawn: int
    wrong: Mapping[str, int]
    benchmarks: Mapping[str, int]
    right_although_misread: Mapping[str, int]
    labellers: Mapping[str, LabellerSummary]
    headline: Headline
    agreement: tuple[Agreement, ...]
    transitions: tuple[Transitions, ...]
    readings: tuple[ReadingsSummary, ...]
    misread_facts: tuple[MisreadFact, ...]
    published: PublishedErrors
    judge: tuple[JudgeFacts, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Returns what summary.json holds."""
        found: dict[str, Any] = _plain(self)
        return found


def _plain(value: Any) -> Any:
    match value:
        case Share():
            ends = {"wilson": value.wilson, "bootstrap": value.bootstrap}
            intervals = {name: [one.low, one.high] for name, one in ends.items()}
            return {"count": value.count, "share": value.wilson.value, **intervals}
        case LabellerSummary():
            plain = _fields(value)
            checks = plain.pop("validation")
            return {**plain, **(checks or {})}
        case Agreement():
            cells = _cells(value.table, "first", "second", "cases")
            return {**_fields(value), "table": cells}
        case Discordance():
            plain = _fields(value)
            p_value = plain.pop("p_value")
            return {**plain, "mcnemar_p": p_value}
        case Transitions():
            return {
                **{"labeller": value.labeller, "before": value.before, "after": value.after},
                **{"slots": value.units, "left_out": value.left_out},
                "counts": _cells(value.counts, "before", "after", "slots"),
                **{"correct": _plain(value.correct), "perception": _plain(value.perception)},
                "perception_reduction": _plain(value.reduction),
                "bowker_p": value.symmetry_p,
            }
        case Mapping():
            return {str(key): _plain(one) for key, one in value.items()}
        case tuple():
            return [_plain(one) for one in value]
    return _fields(value) if is_dataclass(value) else value


def _fields(value: Any) -> dict[str, Any]:
    return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}


def _cells(
    table: Mapping[tuple[ErrorCategory, ErrorCategory], int], first: str, second: str, count: str
) -> list[dict[str, Any]]:
    return [
        {first: str(one), second: str(other), count: number}
        for (one, other), number in sorted(table.items())
    ]
