"""Several sets of problems, mixed by weight."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from typing import Any

from papo.data.census import Census, notes_on
from papo.data.filtering import FilteredProblems, ProblemFilterReport, Reading
from papo.types import Problem, ProblemSource, key_in

_MOST_POSITIONS = 10_000_000


class MixedProblems:
    """The problems of several sets, one set after another; ids are NAME/ID.

    Of the usable ones a pass shows each set's as often as its weight says: the set that has most problems for its
    weight once, the others again and again, in their order. Nothing is drawn: which problem stands where depends on
    the sets and weights alone, and the order in which they are seen is the stream's, as for one set.

    Args:
        sets: by their names.
        weights: what share of the problems that are shown is of each set; they need not add up to 1. Sets that are
            not named have the weight 1.
        section: where these settings stand in the configuration; messages name keys of it.

    Raises:
        ValueError: there is no set, a weight is not positive, or that of no set.
    """

    def __init__(
        self,
        *,
        sets: Mapping[str, ProblemSource],
        weights: Mapping[str, float | int] | None,
        section: str = "data",
    ) -> None:
        key = key_in(section, "weights")
        weights = weights or {}
        if not sets:
            raise ValueError(f"a mixture has sets; got none. Set {key_in(section, 'sets')}.NAME=")
        if unknown := sorted(set(weights) - set(sets)):
            raise ValueError(
                f"{key}.{unknown[0]} weighs a set that is not one of {', '.join(sets)}"
            )
        for name, weight in weights.items():
            if not 0 < weight < float("inf"):
                raise ValueError(f"a weight is positive and finite; got {key}.{name}={weight}")
        self.sets = dict(sets)
        self.weights = {name: float(weights.get(name, 1.0)) for name in sets}
        self.section = section
        for name, one in self.sets.items():
            if hasattr(one, "section"):
                one.section = f"{key_in(section, 'sets')}.{name}"

    def preflight(self) -> None:
        """See `ProblemTable.preflight`."""
        for one in self.sets.values():
            if hasattr(one, "preflight"):
                one.preflight()

    @property
    def max_prompt_tokens(self) -> int | None:
        """The longest prompt of any set; None where a set does not say."""
        longest = [getattr(one, "max_prompt_tokens", None) for one in self.sets.values()]
        return None if None in longest else max(one for one in longest if one is not None)

    @cached_property
    def census(self) -> Census:
        """See `ProblemTable.census`."""
        held = [getattr(one, "census", None) for one in self.sets.values()]
        return Census(
            problems=len(self),
            # Of a set that does not say, all may have one.
            with_pictures=sum(
                len(one) if census is None else census.with_pictures
                for one, census in zip(self.sets.values(), held, strict=True)
            ),
            notes=tuple(
                f"{name}: {note}" for name, one in self.sets.items() for note in notes_on(one)
            ),
        )

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Problem:
        """Reads one problem.

        Raises:
            ProblemError: it cannot be read.
        """
        name, inner = self._place(index)
        problem = self.sets[name][inner]
        return replace(problem, id=f"{name}/{problem.id}")

    def problem_id(self, index: int) -> str:
        """The id of the problem at `index`, without decoding its images where its set can say it."""
        name, inner = self._place(index)
        source = self.sets[name]
        if hasattr(source, "problem_id"):
            return f"{name}/{source.problem_id(inner)}"
        return self[index].id

    def usable(
        self, prompt_length: Callable[[Problem], int], reading: Reading | None = None
    ) -> tuple[FilteredProblems, ProblemFilterReport]:
        """Returns the problems of one pass, some of them several times, and a report of all sets.

        Args:
            prompt_length: see `ProblemTable.usable`; of a set that cannot tell the usable, all are taken.
            reading: see `ProblemTable.usable`.

        Raises:
            ValueError: no problem of a set is left, or the weights differ so much that a pass would have no end.
        """
        kept: dict[str, Sequence[int]] = {}
        reports: list[ProblemFilterReport] = []
        for name, source in self.sets.items():
            if hasattr(source, "usable"):
                found, report = source.usable(prompt_length, reading)
                kept[name] = found.positions
                reports.append(report)
            else:
                kept[name] = range(len(source))
        return FilteredProblems(self, list(self._pass(kept))), _sum(reports)

    def _pass(self, kept: Mapping[str, Sequence[int]]) -> Iterator[int]:
        """The positions of one pass over the kept problems of each set."""
        length = max(len(kept[name]) / weight for name, weight in self.weights.items())
        counts = {name: round(length * weight) for name, weight in self.weights.items()}
        if sum(counts.values()) > _MOST_POSITIONS:
            raise ValueError(
                f"with {key_in(self.section, 'weights')}={self.weights} a pass that shows every problem would have "
                f"{sum(counts.values()):,}; at most {_MOST_POSITIONS:,}. Choose weights that differ less."
            )
        for start, (name, count) in zip(self._starts, counts.items(), strict=False):
            positions = kept[name]
            yield from (start + positions[number % len(positions)] for number in range(count))

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(len(one) for one in self.sets.values())]

    def _place(self, index: int) -> tuple[str, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"problem {index} of {len(self)}")
        number = bisect_right(self._starts, index) - 1
        return list(self.sets)[number], index - self._starts[number]


def _sum(reports: Sequence[ProblemFilterReport]) -> ProblemFilterReport:
    dropped: Counter[str] = Counter()
    examples: dict[str, tuple[Any, ...]] = {}
    for one in reports:
        dropped.update(one.dropped)
        for reason, shown in one.examples.items():
            examples[reason] = (*examples.get(reason, ()), *shown)
    return ProblemFilterReport(
        seen=sum(one.seen for one in reports),
        kept=sum(one.kept for one in reports),
        with_pictures=sum(one.with_pictures for one in reports),
        dropped=dict(dropped),
        examples=examples,
    )
