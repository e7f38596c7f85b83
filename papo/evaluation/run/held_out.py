"""Benchmarks as a training run evaluates its policy on them: nothing is kept but what came of it.

An evaluation that keeps its responses is evaluate.py's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich.table import Table

from papo.data import CheckedProblems, FilteredProblems
from papo.evaluation.benchmark import Benchmark
from papo.evaluation.run.runner import Runner
from papo.parallel import Ranks
from papo.reporting.numbers import percent
from papo.statistics import Interval, bootstrap_mean
from papo.storage.responses import FinishedBatch
from papo.types import Problem, ProblemSource, ResponseRecord, RolloutEngine
from papo.views import ImageView

_SHARES: Mapping[str, Callable[[ResponseRecord], bool]] = {
    "accuracy": lambda record: record.correct,
    "finished": lambda record: record.stop_reason == "end",
    "answered": lambda record: record.answer is not None,
}
"""Of responses: right, ended by themselves, with an answer that the grader could read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkReport:
    """What became of the responses to several benchmarks.

    Attributes:
        sets: by the key of the benchmark: its label, its problems with responses, how many responses each has,
            shares of `_SHARES` with their intervals over problems, and the mean tokens of a response.
    """

    sets: Mapping[str, Mapping[str, Any]]

    def scalars(self) -> dict[str, float]:
        """Returns `KEY/accuracy`, `KEY/finished`, `KEY/answered` and `KEY/tokens_mean`."""
        return {
            f"{key}/{name}": value
            for key, one in self.sets.items()
            for name, value in (
                *((name, share.value) for name, share in _shares(one).items()),
                ("tokens_mean", one["tokens_mean"]),
            )
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values by the label of the benchmark, of the form that a run's page shows."""
        return {
            one["label"]: {
                "num_problems": one["num_problems"],
                "num_responses": one["num_responses"],
                "accuracy": asdict(one["accuracy"]),
                "shares": {name: asdict(share) for name, share in one["shares"].items()},
            }
            for one in self.sets.values()
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldOutBenchmarks:
    """Benchmarks as `papo.training.HeldOut`; the ranks take turns.

    Draws depend on (seed, benchmark, problem) alone, so evaluations of one run are paired.

    Attributes:
        benchmarks: at least one.
        num_problems: the first so many of each; None: all.
        num_responses: to each problem.
        max_response_tokens: of the engine.
        tokens_per_batch: as of `EvaluationSettings`.
        seed: of the draws, and of the intervals.
    """

    benchmarks: Sequence[Benchmark]
    num_problems: int | None
    num_responses: int
    max_response_tokens: int
    tokens_per_batch: int
    seed: int
    _named: set[tuple[str, int]] = field(default_factory=set, init=False)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(
            f"{benchmark.key}/{name}"
            for benchmark in self.benchmarks
            for name in (*_SHARES, "tokens_mean")
        )

    def evaluate(self, policy: Any, engine: RolloutEngine, *, ranks: Ranks) -> BenchmarkReport:
        """Samples with the engine's own settings, and grades.

        Raises:
            ValueError: no problem of a benchmark could be shown.
        """
        kept = _Kept()
        Runner(
            ranks=ranks,
            policy=policy,
            engine=engine,
            views=(ImageView(),),
            store=kept,
            num_responses=self.num_responses,
            max_response_tokens=self.max_response_tokens,
            tokens_per_batch=self.tokens_per_batch,
            seed=self.seed,
            named=self._named,
        ).run([self._shown(one, policy) for one in self.benchmarks], lambda what, problems: None)
        return BenchmarkReport(
            sets={
                benchmark.key: {"label": benchmark.label, **self._scores(benchmark, kept.records)}
                for benchmark in self.benchmarks
            }
        )

    def table(self, reports: Mapping[str, Mapping[str, Any]]) -> Table:
        """Returns a table of one section per benchmark and one column per report."""
        table = Table(title="Held-out problems: share of responses in %, with 95 % intervals")
        for column in ("benchmark", "what became of it"):
            table.add_column(column)
        for moment in reports:
            table.add_column(moment, justify="right")
        for label in next(iter(reports.values())):
            sets = [report[label] for report in reports.values()]
            table.add_section()
            table.add_row(label, "[bold]accuracy", *(percent(one["accuracy"]) for one in sets))
            for name in sets[0]["shares"]:
                table.add_row("", name, *(percent(one["shares"][name]) for one in sets))
        return table

    def _shown(self, benchmark: Benchmark, policy: Any) -> Benchmark:
        """The benchmark as far as it is evaluated; a problem of which no prompt can be made counts as unreadable."""
        problems: ProblemSource = CheckedProblems(
            benchmark.problems, prompt_length=policy.encoder.prompt_length
        )
        if self.num_problems is not None and self.num_problems < len(problems):
            problems = FilteredProblems(problems, range(self.num_problems))
        return replace(benchmark, problems=problems)

    def _scores(self, benchmark: Benchmark, records: Sequence[ResponseRecord]) -> dict[str, Any]:
        by_problem: dict[str, list[ResponseRecord]] = {}
        for record in records:
            if record.benchmark == benchmark.key:
                by_problem.setdefault(record.problem_id, []).append(record)
        if not by_problem:
            raise ValueError(
                f"none of the held-out problems of {benchmark.label} could be shown; each is named above with its "
                "reason. Mend the data (benchmark.path=), or choose another benchmark="
            )
        shares = {
            name: bootstrap_mean(
                [sum(map(is_so, row)) / len(row) for row in by_problem.values()], seed=self.seed
            )
            for name, is_so in _SHARES.items()
        }
        lengths = [record.num_tokens for row in by_problem.values() for record in row]
        return {
            "num_problems": len(by_problem),
            "num_responses": self.num_responses,
            "accuracy": shares.pop("accuracy"),
            "shares": shares,
            "tokens_mean": sum(lengths) / len(lengths),
        }


class _Kept:
    """The responses of one evaluation, in memory, on every rank."""

    def __init__(self) -> None:
        self.records: list[ResponseRecord] = []

    def num_done(self, benchmark: str, view: str) -> int:
        return 0

    def keep_problem(self, benchmark: str, index: int, problem: Problem) -> None:
        """Nobody continues this evaluation."""

    def add(self, batch: FinishedBatch, records: Sequence[ResponseRecord]) -> None:
        self.records.extend(records)


def _shares(one: Mapping[str, Any]) -> dict[str, Interval]:
    return {"accuracy": one["accuracy"], **one["shares"]}
