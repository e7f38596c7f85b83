"""What is misread: which numbers of a drawn scene are read as which, and is that what the question suggests.

Taken over every response of an evaluation, right or wrong: a scene's truth costs nothing to compare
with. A response outside the lab's grammar has no readings and is counted.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from papo.lab import Category, grade_response, scene_numbers
from papo.lab.scene import prior_probabilities
from papo.statistics import Interval, bootstrap_ratio
from papo.storage.evaluated_run import EvaluatedRun, ItemKey, KnownProblem
from papo.types import ResponseRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One number that a response says it read.

    Attributes:
        operation, side: what was asked, and which number this is.
        shown: the number in the picture.
        said: the number in the response.
        likeliest: the number that training showed most often at this side under this question.
        problem, record: where it was read.
    """

    operation: str
    side: str
    shown: int
    said: int
    likeliest: int
    problem: KnownProblem
    record: ResponseRecord

    @property
    def is_wrong(self) -> bool:
        """Whether the response says another number than the picture shows."""
        return self.said != self.shown


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReadings:
    """All readings of one run.

    Attributes:
        run: its name.
        readings: of the responses that follow the lab's grammar.
        left_out: responses that do not.
    """

    run: str
    readings: tuple[Reading, ...]
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """How many readings say one number where the picture shows another, or the same."""

    shown: int
    said: int
    readings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SideReadings:
    """The readings of one side under one question.

    Attributes:
        operation, side: which.
        likeliest: the number that training showed most often there.
        readings, misread: how many.
        could_be_guessed: wrong ones where the likeliest number is not the one shown.
        said_likeliest: how many of these say it.
        guessed: the share of these.
        evenly: the share that wrong numbers picked evenly would have.
    """

    operation: str
    side: str
    likeliest: int
    readings: int
    misread: int
    could_be_guessed: int
    said_likeliest: int
    guessed: Interval | None
    evenly: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkReadings:
    """The readings of one benchmark: how many, the share misread, and the rest as of `SideReadings`."""

    readings: int
    share: Interval | None
    could_be_guessed: int
    said_likeliest: int
    guessed: Interval | None
    evenly: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingsSummary:
    """What a run misread of drawn scenes.

    Attributes:
        run: its name.
        readings, misread: how many.
        responses_left_out: of no grammar.
        share: misread, with an interval over problems; None without a reading.
        table, sides, benchmarks: by number, by question and side, by benchmark.
    """

    run: str
    readings: int
    misread: int
    responses_left_out: int
    share: Interval | None
    table: tuple[Mistake, ...]
    sides: tuple[SideReadings, ...]
    benchmarks: Mapping[str, BenchmarkReadings]


def read_readings(run: EvaluatedRun) -> RunReadings | None:
    """Returns what a run read off drawn scenes; None where it was shown none."""
    readings: list[Reading] = []
    left_out = num_scenes = 0
    for key, records in run.responses.items():
        problem = run.problems[key]
        if problem.truth is None or (sides := scene_numbers(problem.truth)) is None:
            continue
        num_scenes += 1
        operation = str(problem.truth["operation"])
        for record in records:
            if grade_response(problem.truth, record.response).category is Category.FORMAT:
                left_out += 1
                continue
            readings.extend(
                Reading(
                    operation=operation,
                    side=side,
                    shown=number,
                    said=_said(side, record.response),
                    likeliest=_likeliest(operation, side),
                    problem=problem,
                    record=record,
                )
                for side, number in sides.items()
            )
    if not num_scenes:
        return None
    return RunReadings(run=run.name, readings=tuple(readings), left_out=left_out)


def summarize_readings(found: RunReadings, *, seed: int) -> ReadingsSummary:
    """Returns counts and shares; intervals resample problems."""
    wrong = [reading for reading in found.readings if reading.is_wrong]
    sides: dict[tuple[str, str], list[Reading]] = {}
    benchmarks: dict[str, list[Reading]] = {}
    for reading in found.readings:
        sides.setdefault((reading.operation, reading.side), []).append(reading)
        benchmarks.setdefault(reading.record.benchmark, []).append(reading)
    table = Counter((reading.shown, reading.said) for reading in found.readings)
    return ReadingsSummary(
        run=found.run,
        readings=len(found.readings),
        misread=len(wrong),
        responses_left_out=found.left_out,
        share=_share(found.readings, [one.is_wrong for one in found.readings], seed=seed),
        table=tuple(
            Mistake(shown=shown, said=said, readings=count)
            for (shown, said), count in sorted(table.items())
        ),
        sides=tuple(
            SideReadings(
                operation=operation,
                side=side,
                likeliest=of_side[0].likeliest,
                readings=len(of_side),
                misread=sum(reading.is_wrong for reading in of_side),
                **_guesses(of_side, seed=seed),
            )
            for (operation, side), of_side in sorted(sides.items())
        ),
        benchmarks={
            benchmark: BenchmarkReadings(
                readings=len(of_benchmark),
                share=_share(of_benchmark, [one.is_wrong for one in of_benchmark], seed=seed),
                **_guesses(of_benchmark, seed=seed),
            )
            for benchmark, of_benchmark in sorted(benchmarks.items())
        },
    )


def example_misreadings(found: RunReadings, count: int) -> list[tuple[Reading, int]]:
    """Returns one reading of each of the commonest mistakes, and how often each was made."""
    by_mistake: dict[tuple[int, int], list[Reading]] = {}
    for reading in found.readings:
        if reading.is_wrong:
            by_mistake.setdefault((reading.shown, reading.said), []).append(reading)
    commonest = sorted(by_mistake.values(), key=len, reverse=True)[:count]
    return [(readings[0], len(readings)) for readings in commonest]


def _guesses(readings: Sequence[Reading], *, seed: int) -> dict[str, Any]:
    """How many wrong readings say the likeliest number, where that is not the one shown."""
    could = [
        reading for reading in readings if reading.is_wrong and reading.likeliest != reading.shown
    ]
    evenly = {1 / (len(_prior(reading.operation, reading.side)) - 1) for reading in could}
    return {
        "could_be_guessed": len(could),
        "said_likeliest": sum(reading.said == reading.likeliest for reading in could),
        "guessed": _share(
            could, [reading.said == reading.likeliest for reading in could], seed=seed
        ),
        "evenly": sum(evenly) / len(evenly) if evenly else None,
    }


def _share(readings: Sequence[Reading], hits: Sequence[bool], *, seed: int) -> Interval | None:
    """The share of hits with its interval; readings of one problem are not independent."""
    if not readings:
        return None
    per_problem: dict[ItemKey, list[int]] = {}
    for reading, hit in zip(readings, hits, strict=True):
        counts = per_problem.setdefault(
            (reading.record.benchmark, reading.record.problem_id), [0, 0]
        )
        counts[0] += hit
        counts[1] += 1
    most = float(max(total for _, total in per_problem.values()))
    return bootstrap_ratio(
        [float(hit) for hit, _ in per_problem.values()],
        [float(total) for _, total in per_problem.values()],
        seed=seed,
        extremes=((0.0, most), (most, most)),
    )


def _said(side: str, response: str) -> int:
    # In the lab's grammar the first number after "side =" is the reading.
    match = re.search(rf"\b{side}\s*=\s*([0-9]+)", response)
    assert match is not None, "the response follows the grammar"
    return int(match[1])


@cache
def _prior(operation: str, side: str) -> Mapping[int, float]:
    # The ranks do not depend on the exponent.
    return prior_probabilities(operation, side, prior="training", zipf_exponent=1.0)


def _likeliest(operation: str, side: str) -> int:
    prior = _prior(operation, side)
    return max(prior, key=prior.__getitem__)
