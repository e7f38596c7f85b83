"""Runs the perception probe in an evaluation's folder, problem by problem."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from papo.evaluation.benchmark import Benchmark
from papo.evaluation.probe.perception_probe import PerceptionProbe, ScoringPolicy
from papo.evaluation.probe.report import summarize_probe, write_probe_summary
from papo.evaluation.probe.token_divergence import TokenDivergence
from papo.evaluation.progress import Advance
from papo.parallel import Ranks
from papo.storage.files import AppendOnlyFile, write_atomically
from papo.storage.responses import read_responses
from papo.types import ResponseRecord


def run_probe(
    probe: PerceptionProbe,
    *,
    policy: ScoringPolicy,
    benchmarks: Sequence[Benchmark],
    folder: Path,
    bootstrap_seed: int,
    progress: Callable[[int, int], AbstractContextManager[Advance]],
    ranks: Ranks,
) -> None:
    """Writes perception_kl.jsonl, as far as it is not there, then its summary.

    Args:
        probe: scores.
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
    path = folder / "perception_kl.jsonl"
    done, lines = ranks.first(lambda: _where_it_stands(path, probe))
    file = AppendOnlyFile(path) if ranks.writes else None
    own = defaultdict(list)
    for record in map(ResponseRecord.from_line, lines):
        own[record.benchmark].append(record)
    total = sum(probe.num_read(benchmark.problems) for benchmark in benchmarks)
    with progress(total, sum(map(len, done.values()))) as advance:
        for benchmark in benchmarks:
            known = frozenset(done.get(benchmark.key, ()))
            found = probe.run(policy, benchmark, own[benchmark.key], done=known, ranks=ranks)
            for divergences in found:
                if divergences and file:
                    file.append("".join(one.to_line() for one in divergences))
                advance(f"{benchmark.label}, probe", 1)
    if file:
        scored = (TokenDivergence.from_line(line) for line in file.read_lines())
        write_probe_summary(summarize_probe(scored, bootstrap_seed=bootstrap_seed), folder)


def _where_it_stands(path: Path, probe: PerceptionProbe) -> tuple[dict[str, list[str]], list[str]]:
    """Returns the ids of the problems that are done, by benchmark, and the own responses as lines."""
    _drop_last_problem(path)
    done: dict[str, list[str]] = defaultdict(list)
    for line in AppendOnlyFile(path).read_lines():
        one = TokenDivergence.from_line(line)
        if one.problem_id not in done[one.benchmark][-1:]:
            done[one.benchmark].append(one.problem_id)
    own = [
        record.to_line()
        for record in read_responses(path.parent)
        if record.view == "image" and record.response_index < probe.num_responses
    ]
    return dict(done), own


def _drop_last_problem(path: Path) -> None:
    """Drops the lines of the last problem, some of which a crash may have cost."""
    lines = AppendOnlyFile(path).read_lines()
    problems = [(one.benchmark, one.problem_id) for one in map(TokenDivergence.from_line, lines)]
    if problems:
        kept = lines[: problems.index(problems[-1])]
        write_atomically(path, "".join(f"{line}\n" for line in kept))
