"""Scores responses in an evaluation's folder, problem by problem, and goes on where it was."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from papo.evaluation.benchmark import Benchmark
from papo.evaluation.progress import Advance
from papo.evaluation.response_scorer import ScoringPolicy
from papo.parallel import Ranks
from papo.storage.files import AppendOnlyFile, write_atomically
from papo.storage.responses import read_responses
from papo.types import IMAGE, ProblemSource, ResponseRecord


@runtime_checkable
class Line(Protocol):
    """What is kept of one response; its line of JSON has `benchmark` and `problem_id`."""

    def to_line(self) -> str: ...


@runtime_checkable
class Scoring(Protocol):
    """What is scored and kept, e.g. the perception probe.

    Attributes:
        name: of what is done, for the progress.
        file: where the lines are kept.
        num_responses: how many of the policy's own responses to a problem it reads.
    """

    name: str
    file: str

    @property
    def num_responses(self) -> int: ...

    def num_read(self, problems: ProblemSource) -> int: ...

    def run(
        self,
        policy: ScoringPolicy,
        benchmark: Benchmark,
        records: Iterable[ResponseRecord],
        *,
        done: frozenset[str],
        ranks: Ranks,
    ) -> Iterator[Sequence[Line]]: ...

    def summarize(self, lines: Iterable[str], folder: Path, *, bootstrap_seed: int) -> None: ...


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
