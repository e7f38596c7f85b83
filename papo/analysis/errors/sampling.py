"""Which wrong answers are labelled: stratified by benchmark, seeded, one response per problem."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from papo.analysis.errors.taxonomy import Case
from papo.storage.evaluated_run import EvaluatedRun, ItemKey
from papo.types import ResponseRecord, derive_seed


@dataclass(frozen=True, slots=True)
class Unit:
    """One response slot, the same in every run: runs that share their seeds are paired in it."""

    benchmark: str
    problem_id: str
    response_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The response slots that were drawn, and the wrong responses in them.

    Attributes:
        analysis: opaque id of exactly these cases; labels made for others are refused.
        runs: names, the first being what the others are compared with.
        units: the drawn slots, in the order of benchmark and draw.
        cases: every wrong response of every run in these slots.
        correct: per run, which units it answered right.
        items: per run and unit, the item id of its wrong response.
        right_although_misread: per run of the lab, right answers in spite of a wrong reading.
    """

    analysis: str
    runs: tuple[str, ...]
    units: tuple[Unit, ...]
    cases: tuple[Case, ...]
    correct: Mapping[str, frozenset[Unit]]
    items: Mapping[tuple[str, Unit], str]
    right_although_misread: Mapping[str, int]

    def blind_order(self) -> tuple[Case, ...]:
        """The cases in an order that says nothing of the run: that of their opaque ids."""
        return tuple(sorted(self.cases, key=lambda case: case.item))

    def to_json(self) -> dict[str, Any]:
        """Returns what items.json holds: which response stands behind each opaque id."""
        return {
            "analysis": self.analysis,
            "runs": list(self.runs),
            "units_drawn": len(self.units),
            "items": {
                case.item: {
                    "run": case.run,
                    "benchmark": case.benchmark,
                    "problem_id": case.problem_id,
                    "response_index": case.response_index,
                }
                for case in self.cases
            },
        }


def draw_sample(runs: Sequence[EvaluatedRun], *, num_cases: int | None, seed: int) -> Sample:
    """Draws response slots until the first run has `num_cases` wrong answers in them.

    Slots are drawn whether or not their answers are right, so that what a comparison of two runs
    counts is not conditioned on the first one's errors. Every problem gives one slot, its response
    index drawn at random. Each benchmark gives the same number of wrong answers, or all it has.

    Args:
        runs: of the same items.
        num_cases: wrong answers of the first run; None takes every problem.
        seed: equal seeds draw equal samples.

    Raises:
        ValueError: no wrong answer at all, or num_cases below 1.
    """
    if num_cases is not None and num_cases < 1:
        raise ValueError(f"an analysis needs at least one case; got num_cases={num_cases}")
    first = runs[0]
    by_benchmark: dict[str, list[Unit]] = {}
    for benchmark, problem_id in sorted(first.responses):
        index = derive_seed(seed, "response", benchmark, problem_id) % first.num_responses
        by_benchmark.setdefault(benchmark, []).append(Unit(benchmark, problem_id, index))
    for benchmark, units in by_benchmark.items():
        np.random.default_rng(derive_seed(seed, "order", benchmark)).shuffle(units)
    wrong = {
        benchmark: sum(not _record(first, unit).correct for unit in units)
        for benchmark, units in by_benchmark.items()
    }
    quotas = wrong if num_cases is None else equal_quotas(wrong, num_cases)
    drawn: list[Unit] = []
    for benchmark, units in by_benchmark.items():
        everything = quotas[benchmark] == wrong[benchmark]
        drawn.extend(units if everything else _until_wrong(first, units, quotas[benchmark]))
    return _sample(runs, drawn)


def equal_quotas(available: Mapping[str, int], total: int) -> dict[str, int]:
    """Returns how many of `total` each stratum gives: equally many, or all it has.

    What small strata cannot give, the others share; a remainder goes to the first in order.
    """
    quotas = dict.fromkeys(available, 0)
    left = min(total, sum(available.values()))
    while left:
        open_strata = [name for name in quotas if quotas[name] < available[name]]
        each = max(1, left // len(open_strata))
        for name in open_strata:
            given = min(each, available[name] - quotas[name], left)
            quotas[name] += given
            left -= given
    return quotas


def _until_wrong(run: EvaluatedRun, units: Sequence[Unit], quota: int) -> list[Unit]:
    """The first units that hold `quota` wrong answers of the run."""
    drawn: list[Unit] = []
    for unit in units:
        if quota == 0:
            break
        drawn.append(unit)
        quota -= not _record(run, unit).correct
    return drawn


def _sample(runs: Sequence[EvaluatedRun], units: Sequence[Unit]) -> Sample:
    cases, items = [], {}
    for number, run in enumerate(runs):
        for unit in units:
            record = _record(run, unit)
            if not record.correct:
                item = _digest([number, *_identity(unit), record.response])
                items[run.name, unit] = item
                cases.append(_case(run, record, item))
    if not cases:
        raise ValueError(
            f"{' and '.join(run.name for run in runs)} answered all {len(units)} problems right: "
            "there is no error to analyse"
        )
    return Sample(
        analysis=_digest(sorted(case.item for case in cases)),
        runs=tuple(run.name for run in runs),
        units=tuple(units),
        cases=tuple(cases),
        correct={
            run.name: frozenset(unit for unit in units if _record(run, unit).correct)
            for run in runs
        },
        items=items,
        right_although_misread={
            run.name: sum(verdict == "correct_but_misread" for verdict in verdicts)
            for run in runs
            if (verdicts := [v for unit in units if (v := _record(run, unit).verdicts.get("lab"))])
        },
    )


def _record(run: EvaluatedRun, unit: Unit) -> ResponseRecord:
    key: ItemKey = (unit.benchmark, unit.problem_id)
    return run.responses[key][unit.response_index]


def _case(run: EvaluatedRun, record: ResponseRecord, item: str) -> Case:
    problem = run.problems[record.benchmark, record.problem_id]
    return Case(
        item=item,
        run=run.name,
        benchmark=record.benchmark,
        problem_id=record.problem_id,
        response_index=record.response_index,
        question=problem.question,
        reference=record.reference,
        response=record.response,
        answer=record.answer,
        was_cut=record.stop_reason == "length",
        verdicts=record.verdicts,
        truth=problem.truth,
        images=problem.images,
    )


def _identity(unit: Unit) -> list[Any]:
    return [unit.benchmark, unit.problem_id, unit.response_index]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
