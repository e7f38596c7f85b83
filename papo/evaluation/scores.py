"""From graded responses to numbers: avg@k, pass@k, intervals, and the averages of the paper's Table 1."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from papo.evaluation.settings import published_columns
from papo.rewards.extraction import close_up_tags
from papo.rewards.format_rule import follows_format
from papo.statistics import (
    Interval,
    bootstrap_mean,
    bootstrap_mean_of_means,
    is_majority,
    pass_at_k,
)
from papo.types import ResponseRecord

NUM_GENERAL = 5
"""The first five columns of Table 1 are the general group, the other four the vision group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetScores:
    """One benchmark in one view. Shares are between 0 and 1, intervals 95 % over problems.

    Attributes:
        benchmark, view: which.
        num_problems: with responses; those left out are not counted.
        num_responses: k, the same for every problem.
        accuracy: avg@k, the mean over problems of the share of their responses that are right.
        pass_at: unbiased pass@k by k, mean over problems.
        cut: share of responses that were cut at the limit of tokens.
        answered: share from which the grader read a final answer.
        formatted: share that thinks in <think></think> and then boxes an answer.
        mean_tokens: sampled tokens per response.
        verdicts: per grader, the share of responses per verdict.
        disagreement: share of responses that some graders accept and others do not; None with one.
        per_problem: the share of right responses by problem id.
    """

    benchmark: str
    view: str
    num_problems: int
    num_responses: int
    accuracy: Interval
    pass_at: Mapping[int, Interval]
    cut: float
    answered: float
    formatted: float
    mean_tokens: float
    verdicts: Mapping[str, Mapping[str, float]]
    disagreement: float | None
    per_problem: Mapping[str, float] = field(repr=False)

    def accuracy_of(self, grader: str) -> float:
        """Share of responses that one grader accepts."""
        return math.fsum(share for name, share in self.verdicts[grader].items() if accepts(name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Average:
    """An unweighted mean over benchmarks.

    Attributes:
        name: general, vision or overall.
        interval: None where a benchmark of the group is missing.
        num_shared: problems that several of its benchmarks ask, resampled together.
        missing: published columns without a result.
    """

    name: str
    interval: Interval | None
    num_shared: int
    missing: tuple[str, ...]


def accepts(verdict: str) -> bool:
    """Whether a verdict of a grader means right; the lab also says `correct_but_misread`."""
    return verdict.startswith("correct")


def groups_of_columns() -> dict[str, tuple[str, ...]]:
    """The published columns behind each average of Table 1."""
    columns = published_columns()
    return {"general": columns[:NUM_GENERAL], "vision": columns[NUM_GENERAL:], "overall": columns}


@dataclass(slots=True)
class _Tally:
    correct: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    cut: int = 0
    answered: int = 0
    formatted: int = 0
    tokens: int = 0
    verdicts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    disagree: int = 0

    def add(self, record: ResponseRecord) -> None:
        self.correct[record.problem_id].append(record.correct)
        self.cut += record.stop_reason == "length"
        self.answered += record.answer is not None
        self.formatted += follows_format(close_up_tags(record.response), "think_then_box")
        self.tokens += record.num_tokens
        for grader, verdict in record.verdicts.items():
            self.verdicts[grader][verdict] += 1
        self.disagree += len({accepts(verdict) for verdict in record.verdicts.values()}) > 1


def score_responses(
    records: Iterable[ResponseRecord], *, pass_at: Sequence[int], bootstrap_seed: int
) -> list[SetScores]:
    """Returns the scores of every benchmark and view, in the order in which they appear.

    Args:
        records: read once, so it may be a stream.
        pass_at: the k of pass@k.
        bootstrap_seed: of the intervals.

    Raises:
        ValueError: problems of one benchmark and view have different numbers of responses.
    """
    tallies: dict[tuple[str, str], _Tally] = defaultdict(_Tally)
    for record in records:
        tallies[record.benchmark, record.view].add(record)
    return [
        _scores(benchmark, view, tally, pass_at, bootstrap_seed)
        for (benchmark, view), tally in tallies.items()
    ]


def _scores(
    benchmark: str, view: str, tally: _Tally, pass_at: Sequence[int], bootstrap_seed: int
) -> SetScores:
    counts = {len(row) for row in tally.correct.values()}
    if len(counts) != 1:
        raise ValueError(
            f"every problem has the same number of responses; in {benchmark}, view {view}, there are "
            f"problems with {min(counts)} and with {max(counts)}. Finish the evaluation with resume=true."
        )
    k = counts.pop()
    per_problem = {problem: sum(row) / k for problem, row in tally.correct.items()}
    num_responses = k * len(per_problem)
    return SetScores(
        benchmark=benchmark,
        view=view,
        num_problems=len(per_problem),
        num_responses=k,
        accuracy=bootstrap_mean(list(per_problem.values()), seed=bootstrap_seed),
        pass_at={
            at: bootstrap_mean(
                [pass_at_k(k, sum(row), at) for row in tally.correct.values()], seed=bootstrap_seed
            )
            for at in pass_at
        },
        cut=tally.cut / num_responses,
        answered=tally.answered / num_responses,
        formatted=tally.formatted / num_responses,
        mean_tokens=tally.tokens / num_responses,
        verdicts={
            grader: {verdict: count / num_responses for verdict, count in sorted(found.items())}
            for grader, found in tally.verdicts.items()
        },
        disagreement=tally.disagree / num_responses if len(tally.verdicts) > 1 else None,
        per_problem=per_problem,
    )


def averages(
    by_column: Mapping[str, SetScores],
    *,
    identities: Mapping[tuple[str, str], str],
    bootstrap_seed: int,
) -> list[Average]:
    """Returns the averages of Table 1: general (5 benchmarks), vision (4) and overall (9).

    Unweighted means of the columns (arXiv:2507.06448v5, Table 1), so a benchmark of 200 problems counts
    as much as one of 2,180.

    Args:
        by_column: scores in one view, by published column.
        identities: of `problem_identities`; problems without one are nobody else's.
        bootstrap_seed: of the intervals; problems are resampled within each benchmark, those that
            several benchmarks ask in all of them at once.
    """
    found = []
    for name, columns in groups_of_columns().items():
        missing = tuple(column for column in columns if column not in by_column)
        interval, num_shared = None, 0
        if not missing:
            sets = [by_column[column] for column in columns]
            names = [
                [identities.get((one.benchmark, id), (one.benchmark, id)) for id in one.per_problem]
                for one in sets
            ]
            in_sets = Counter(name for own in names for name in set(own))
            num_shared = sum(count > 1 for count in in_sets.values())
            interval = bootstrap_mean_of_means(
                [list(one.per_problem.values()) for one in sets], names=names, seed=bootstrap_seed
            )
        found.append(Average(name=name, interval=interval, num_shared=num_shared, missing=missing))
    return found


def is_solved(row: Sequence[bool]) -> bool:
    """Whether more than half of the responses to a problem are right; a tie is not."""
    return is_majority(sum(row), len(row))
