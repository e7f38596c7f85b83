"""What became of the same response slots in another run: the error they had before, and after."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from papo.analysis.errors.sampling import Sample, Unit
from papo.analysis.errors.shares import Labels
from papo.analysis.errors.taxonomy import ErrorCategory
from papo.statistics import Interval, bowker_test, mcnemar_exact, relative_reduction


@dataclass(frozen=True, slots=True, kw_only=True)
class Discordance:
    """A yes or no of the same slots in two runs.

    Attributes:
        before, after: slots with a yes.
        only_before, only_after: slots whose answer changed.
        p_value: exact McNemar, two-sided.
    """

    before: int
    after: int
    only_before: int
    only_after: int
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Transitions:
    """What one labeller says of two runs.

    Attributes:
        labeller, before, after: who labelled, and the two runs.
        counts: (category before, after) -> slots; right answers are `CORRECT`.
        left_out: slots where a wrong answer has no label.
        correct: of right answers, over all slots: these need no label.
        perception: of perception errors, over the slots of the table.
        reduction: by how much perception errors became rarer, 0.305 for 30.5 %; None where there
            were none before.
        symmetry_p: Bowker's test of the whole table.
    """

    labeller: str
    before: str
    after: str
    counts: Mapping[tuple[ErrorCategory, ErrorCategory], int]
    left_out: int
    correct: Discordance
    perception: Discordance
    reduction: Interval | None
    symmetry_p: float

    @property
    def units(self) -> int:
        """Slots in the table."""
        return sum(self.counts.values())


def compute_transitions(
    sample: Sample, labels: Labels, *, labeller: str, after: str, seed: int
) -> Transitions | None:
    """Returns the transitions from the first run to `after`; None where no slot has both labels.

    The slots were drawn whether or not they are right, so the totals before and after compare the
    runs fairly. One row alone does not: slots picked for their error would also improve if the same
    policy were sampled again.
    """
    before = sample.runs[0]
    pairs: list[tuple[ErrorCategory, ErrorCategory]] = []
    left_out = 0
    for unit in sample.units:
        pair = (_outcome(sample, before, unit, labels), _outcome(sample, after, unit, labels))
        if pair[0] is None or pair[1] is None:
            left_out += 1
        else:
            pairs.append((pair[0], pair[1]))
    if not pairs or all(one is ErrorCategory.CORRECT for pair in pairs for one in pair):
        return None
    counts = Counter(pairs)
    perception = [
        (one is ErrorCategory.PERCEPTION, other is ErrorCategory.PERCEPTION) for one, other in pairs
    ]
    any_before = any(one for one, _ in perception)
    return Transitions(
        labeller=labeller,
        before=before,
        after=after,
        counts=counts,
        left_out=left_out,
        correct=_discordance(
            [
                (unit in sample.correct[before], unit in sample.correct[after])
                for unit in sample.units
            ]
        ),
        perception=_discordance(perception),
        reduction=relative_reduction(
            [float(one) for one, _ in perception],
            [float(other) for _, other in perception],
            paired=True,
            seed=seed,
        )
        if any_before
        else None,
        symmetry_p=bowker_test(
            [[counts[one, other] for other in ErrorCategory] for one in ErrorCategory]
        ).p_value,
    )


def _outcome(sample: Sample, run: str, unit: Unit, labels: Labels) -> ErrorCategory | None:
    if unit in sample.correct[run]:
        return ErrorCategory.CORRECT
    label = labels.get(sample.items[run, unit])
    return label.category if label else None


def _discordance(pairs: list[tuple[bool, bool]]) -> Discordance:
    only_before = sum(one and not other for one, other in pairs)
    only_after = sum(other and not one for one, other in pairs)
    return Discordance(
        before=sum(one for one, _ in pairs),
        after=sum(other for _, other in pairs),
        only_before=only_before,
        only_after=only_after,
        p_value=mcnemar_exact(only_before, only_after),
    )
