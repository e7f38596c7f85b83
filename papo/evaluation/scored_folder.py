"""Scores responses in an evaluation's folder, problem by problem, and goes on where it was."""

import json
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

from papo.evaluation.benchmark import Benchmark
from papo.evaluation.progress import Advance
from papo.evaluation.response_scorer import ResponseScorer, ScoredProblem, ScoringPolicy
from papo.evaluation.scored_response import ScoredResponse
from papo.parallel import Ranks
from papo.storage.files import AppendOnlyFile, write_atomically
from papo.storage.responses import read_responses
from papo.types import IMAGE, ProblemSource, PromptGroup, ResponseRecord
from papo.views import Item


class Scoring(ABC):
    """What is scored and kept, e.g. by the perception probe.

    Args:
        scorer: of given responses.

    Attributes:
        name: of what is done, for the progress.
        file: where the lines are kept.
    """

    name: ClassVar[str]
    file: ClassVar[str]

    def __init__(self, scorer: ResponseScorer) -> None:
        self.scorer = scorer

    @property
    def num_responses(self) -> int:
        """How many of the policy's own responses to a problem are read."""
        return self.scorer.num_responses

    def num_read(self, problems: ProblemSource) -> int:
        """How many problems of a benchmark are looked at, those without a picture included."""
        return self.scorer.num_read(problems)

    def run(
        self,
        policy: ScoringPolicy,
        benchmark: Benchmark,
        records: Iterable[ResponseRecord],
        *,
        done: frozenset[str],
        ranks: Ranks,
    ) -> Iterator[Sequence[ScoredResponse]]:
        """Yields what is kept of one problem after another; nothing where there is nothing to score.

        Args:
            policy: as of `ResponseScorer.run`, and so are all others.
            benchmark: the same.
            records: the same.
            done: the same.
            ranks: the same.

        Raises:
            RanksDiffer: the ranks do not read the same problems.
            ValueError: a problem cannot be shown as it should be.
        """
        for scored in self.scorer.run(
            policy,
            benchmark,
            records,
            show=self.show,
            kl_views=self.compares,
            done=done,
            ranks=ranks,
        ):
            yield () if scored is None else self.kept(policy, benchmark.key, scored)

    @abstractmethod
    def show(self, item: Item, policy: ScoringPolicy) -> Mapping[str, PromptGroup]:
        """The views of a problem that are scored beside the picture."""

    def compares(self, view: str) -> bool:
        """Whether the KL to this view is computed too."""
        return True

    @abstractmethod
    def kept(
        self, policy: ScoringPolicy, benchmark: str, scored: ScoredProblem
    ) -> Sequence[ScoredResponse]:
        """What is kept of the responses to one problem."""

    @abstractmethod
    def summarize(self, lines: Iterable[str], folder: Path, *, bootstrap_seed: int) -> None:
        """Writes the summary of what was scored into an evaluation's folder."""


def run_scoring(
    scoring: Scoring,
    *,
    policy: ScoringPolicy,
    benchmarks: Sequence[Benchmark],
    folder: Path,
    bootstrap_seed: int,
    progress: Callable[[int, int], AbstractContextManager[Advance]],
    ranks: Ranks,
) -> None:
    """Writes the file of the lines, as far as it is not there, then its summary.

    Args:
        scoring: scores.
        policy: who reads.
        benchmarks: whose problems.
        folder: of a finished evaluation of the same policy, for its own responses.
        bootstrap_seed: of the summary's intervals.
        progress: opened with the number of problems and how many of them are done already; then told
            of every other one.
        ranks: the processes of the evaluation, which share the work; rank 0 alone reads and writes the folder.

    Raises:
        OSError: the disk is full; what was scored before is intact.
    """
    path = folder / scoring.file
    done, lines = ranks.first(lambda: _where_it_stands(path, scoring.num_responses))
    file = AppendOnlyFile(path) if ranks.writes else None
    own = defaultdict(list)
    for record in map(ResponseRecord.from_line, lines):
        own[record.benchmark].append(record)
    total = sum(scoring.num_read(benchmark.problems) for benchmark in benchmarks)
    with progress(total, sum(map(len, done.values()))) as advance:
        for benchmark in benchmarks:
            known = frozenset(done.get(benchmark.key, ()))
            found = scoring.run(policy, benchmark, own[benchmark.key], done=known, ranks=ranks)
            for scored in found:
                if scored and file:
                    file.append("".join(one.to_line() for one in scored))
                advance(f"{benchmark.label}, {scoring.name}", 1)
    if file:
        scoring.summarize(file.read_lines(), folder, bootstrap_seed=bootstrap_seed)


def _where_it_stands(path: Path, num_responses: int) -> tuple[dict[str, list[str]], list[str]]:
    """Returns the ids of the problems that are done, by benchmark, and the own responses as lines."""
    _drop_last_problem(path)
    done: dict[str, list[str]] = defaultdict(list)
    for benchmark, problem_id in map(_whose, AppendOnlyFile(path).read_lines()):
        if problem_id not in done[benchmark][-1:]:
            done[benchmark].append(problem_id)
    own = [
        record.to_line()
        for record in read_responses(path.parent)
        if record.view == IMAGE and record.response_index < num_responses
    ]
    return dict(done), own


def _drop_last_problem(path: Path) -> None:
    """Drops the lines of the last problem, some of which a crash may have cost."""
    lines = AppendOnlyFile(path).read_lines()
    problems = [*map(_whose, lines)]
    if problems:
        kept = lines[: problems.index(problems[-1])]
        write_atomically(path, "".join(f"{line}\n" for line in kept))


def _whose(line: str) -> tuple[str, str]:
    values: dict[str, Any] = json.loads(line)
    return values["benchmark"], values["problem_id"]
