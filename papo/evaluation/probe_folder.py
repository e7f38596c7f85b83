"""Runs the perception probe in an evaluation's folder, problem by problem."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from papo.evaluation.benchmark import Benchmark
from papo.evaluation.perception_probe import PerceptionProbe, ScoringPolicy, TokenDivergence
from papo.evaluation.probe_report import summarize_probe, write_probe_summary
from papo.evaluation.progress import Advance
from papo.evaluation.store import read_responses
from papo.files import AppendOnlyFile, write_atomically


def run_probe(
    probe: PerceptionProbe,
    *,
    policy: ScoringPolicy,
    benchmarks: Sequence[Benchmark],
    folder: Path,
    bootstrap_seed: int,
    progress: Callable[[int, int], AbstractContextManager[Advance]],
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

    Raises:
        OSError: the disk is full; what was scored before is intact.
    """
    file = AppendOnlyFile(_without_last_problem(folder / "perception_kl.jsonl"))
    done = defaultdict(set)
    for line in file.read_lines():
        one = TokenDivergence.from_line(line)
        done[one.benchmark].add(one.problem_id)
    own = defaultdict(list)
    for record in read_responses(folder):
        if record.view == "image" and record.response_index < probe.num_responses:
            own[record.benchmark].append(record)
    total = sum(probe.num_read(benchmark.problems) for benchmark in benchmarks)
    with progress(total, sum(map(len, done.values()))) as advance:
        for benchmark in benchmarks:
            known = frozenset(done[benchmark.key])
            for found in probe.run(policy, benchmark, own[benchmark.key], done=known):
                if found:
                    file.append("".join(one.to_line() for one in found))
                advance(f"{benchmark.label}, probe", 1)
    divergences = (TokenDivergence.from_line(line) for line in file.read_lines())
    write_probe_summary(summarize_probe(divergences, bootstrap_seed=bootstrap_seed), folder)


def _without_last_problem(path: Path) -> Path:
    """Drops the lines of the last problem, some of which a crash may have cost; returns the path."""
    lines = AppendOnlyFile(path).read_lines()
    problems = [(one.benchmark, one.problem_id) for one in map(TokenDivergence.from_line, lines)]
    if problems:
        kept = lines[: problems.index(problems[-1])]
        write_atomically(path, "".join(f"{line}\n" for line in kept))
    return path
