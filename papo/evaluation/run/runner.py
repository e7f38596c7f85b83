"""Shows every problem in every view, samples, grades, and keeps the answers batch by batch."""

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

from papo.data import ProblemError
from papo.evaluation.benchmark import Benchmark
from papo.evaluation.progress import Advance
from papo.evaluation.run.batches import Shown, content_of_batch, cut_batches
from papo.parallel import Ranks
from papo.storage.responses import FinishedBatch
from papo.types import Problem, PromptGroup, ResponseRecord, RolloutEngine, derive_seed
from papo.views import Item, ReadingPolicy, View

_log = logging.getLogger(__name__)


@runtime_checkable
class Store(Protocol):
    """Keeps what is graded."""

    def num_done(self, benchmark: str, view: str) -> int:
        """How many of a benchmark's first problems are finished in a view."""
        ...

    def keep_problem(self, benchmark: str, index: int, problem: Problem) -> None: ...

    def add(self, batch: FinishedBatch, records: Sequence[ResponseRecord]) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One sampled response; `engine` as of `ResponseRecord`."""

    text: str
    num_tokens: int
    ended: bool
    engine: str | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Runner:
    """Evaluates one policy.

    Attributes:
        ranks: the processes of the evaluation: all cut the same batches, and take turns in doing them.
        policy: encodes what a view shows.
        engine: samples from the same policy.
        views: each is given every problem of every benchmark.
        store: keeps what is graded, and knows what is done already; rank 0 has one.
        num_responses: k.
        max_response_tokens: of the engine.
        tokens_per_batch: see `EvaluationSettings`.
        seed: of all draws. Those of a problem depend on (seed, benchmark, problem id) alone, so every
            view draws the same, and so does another checkpoint.
        named: problems that could not be read, once that was said.
    """

    ranks: Ranks
    policy: ReadingPolicy
    engine: RolloutEngine
    views: Sequence[View]
    store: Store | None
    num_responses: int
    max_response_tokens: int
    tokens_per_batch: int
    seed: int
    named: set[tuple[str, int]] = field(default_factory=set)

    def run(self, benchmarks: Sequence[Benchmark], advance: Advance) -> None:
        """Does what is not done yet; the graders' processes are gone when it returns or fails.

        Raises:
            RanksDiffer: the ranks do not read the same problems, or make other prompts of them.
        """
        labels = {benchmark.key: benchmark.label for benchmark in benchmarks}
        # Closed here, the benchmark that it broke off in closes its grader.
        with closing(self._batches(benchmarks)) as batches:
            for facts, lines in self.ranks.in_turn(
                batches,
                lambda job: self._do(*job),
                shows=lambda job: f"{job[0].key}, {job[1].name}, {content_of_batch(job[2])}",
                remedy="They read benchmark.path of their own machines: give all the same files.",
            ):
                batch = FinishedBatch(**facts)
                if self.store:
                    self.store.add(batch, [ResponseRecord.from_line(line) for line in lines])
                advance(f"{labels[batch.benchmark]}, {batch.view}", batch.num_problems)

    def _batches(
        self, benchmarks: Sequence[Benchmark]
    ) -> Generator[tuple[Benchmark, View, list[Shown]]]:
        """Cuts what is not done yet; a batch is done once the next is asked for."""
        done = self.ranks.first(lambda: self._num_done(benchmarks))
        for benchmark in benchmarks:
            try:
                for view in self.views:
                    for batch in cut_batches(
                        self._show(benchmark, view, done[benchmark.key][view.name]),
                        num_responses=self.num_responses,
                        max_response_tokens=self.max_response_tokens,
                        tokens_per_batch=self.tokens_per_batch,
                    ):
                        yield benchmark, view, batch
            finally:
                benchmark.close()

    def _num_done(self, benchmarks: Sequence[Benchmark]) -> dict[str, dict[str, int]]:
        assert self.store is not None, "rank 0 has it"
        return {
            benchmark.key: {
                view.name: self.store.num_done(benchmark.key, view.name) for view in self.views
            }
            for benchmark in benchmarks
        }

    def _show(self, benchmark: Benchmark, view: View, first: int) -> Iterator[Shown]:
        """Reads one problem after another; only those of the current batch are held."""
        for index in range(first, len(benchmark.problems)):
            try:
                problem = benchmark.problems[index]
            except ProblemError as error:
                if getattr(benchmark.problems, "strict", False):
                    raise
                # Every view comes to it; once is enough to read.
                if self.ranks.writes and (benchmark.key, index) not in self.named:
                    self.named.add((benchmark.key, index))
                    _log.warning("left out of %s: %s", benchmark.key, error)
                yield Shown(index=index, item=None, prompts=())
                continue
            if self.store:
                self.store.keep_problem(benchmark.key, index, problem)
            item = Item(
                benchmark=benchmark.key,
                problems=benchmark.problems,
                index=index,
                problem=problem,
                seed=derive_seed(self.seed, benchmark.key, problem.id),
            )
            prompts = view(item, self.policy, num_responses=self.num_responses)
            # A batch of problems that are left out has no end: it must not hold their pictures.
            yield Shown(index=index, item=item if prompts else None, prompts=prompts)

    def _do(
        self, benchmark: Benchmark, view: View, batch: Sequence[Shown]
    ) -> tuple[dict[str, Any], list[str]]:
        """Returns the fields of the batch's `FinishedBatch`, and its records as lines."""
        shown = [(one.item, one.prompts) for one in batch if one.item is not None and one.prompts]
        began = perf_counter()
        samples = sample_prompts(
            self.engine,
            [prompts for _, prompts in shown],
            [item.seed for item, _ in shown],
            self.num_responses,
        )
        sampled = perf_counter()
        graded = iter(
            benchmark.grader(
                [item.problem for item, _ in shown for _ in range(self.num_responses)],
                [sample.text for row in samples for sample in row],
            )
            if shown
            else ()
        )
        records = []
        for (item, _), row in zip(shown, samples, strict=True):
            for response_index, sample in enumerate(row):
                grade = next(graded)
                records.append(
                    ResponseRecord(
                        benchmark=benchmark.key,
                        problem_id=item.problem.id,
                        view=view.name,
                        response_index=response_index,
                        seed=item.seed,
                        response=sample.text,
                        reference=item.problem.answer,
                        answer=grade.answer,
                        correct=grade.correct,
                        verdicts=dict(grade.verdicts),
                        num_tokens=sample.num_tokens,
                        stop_reason="end" if sample.ended else "length",
                        engine=sample.engine,
                    )
                )
        finished = FinishedBatch(
            benchmark=benchmark.key,
            view=view.name,
            first_problem=batch[0].index,
            num_problems=len(batch),
            num_left_out=len(batch) - len(shown),
            num_responses=len(records),
            num_tokens=sum(record.num_tokens for record in records),
            sample_seconds=round(sampled - began, 3),
            grade_seconds=round(perf_counter() - sampled, 3),
        )
        return asdict(finished), [record.to_line() for record in records]


def sample_prompts(
    engine: RolloutEngine,
    prompts: Sequence[Sequence[PromptGroup]],
    seeds: Sequence[int],
    num_responses: int,
) -> list[list[Sample]]:
    """Returns `num_responses` responses per problem; response j answers prompt j modulo their number.

    Args:
        engine: samples.
        prompts: of each problem; at least one.
        seeds: of each problem. Its only prompt draws with it, several draw with seeds derived from it.
        num_responses: k.
    """
    found: list[dict[int, Sample]] = [{} for _ in prompts]
    # The engine gives every prompt of a call equally many responses.
    by_count: dict[int, list[tuple[int, int, PromptGroup]]] = {}
    for problem, variants in enumerate(prompts):
        for variant, prompt in enumerate(variants):
            count = len(range(variant, num_responses, len(variants)))
            if count:
                by_count.setdefault(count, []).append((problem, variant, prompt))
    for count, jobs in by_count.items():
        responses = engine.sample(
            [prompt for _, _, prompt in jobs],
            count,
            [
                seeds[problem]
                if len(prompts[problem]) == 1
                else derive_seed(seeds[problem], "prompt", variant)
                for problem, variant, _ in jobs
            ],
        )
        lengths, ended = responses.mask.sum(dim=1).tolist(), responses.finished.tolist()
        for row, text in enumerate(responses.texts):
            problem, variant, _ = jobs[row // count]
            response_index = variant + row % count * len(prompts[problem])
            found[problem][response_index] = Sample(
                text=text, num_tokens=lengths[row], ended=ended[row], engine=responses.engine(row)
            )
    return [[row[index] for index in range(num_responses)] for row in found]
