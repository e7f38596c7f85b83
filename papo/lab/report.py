"""The before/after table: accuracy and error shares per test set, with 95 % intervals.

Several responses to one problem are not independent, so every interval is over problems: the share
within each problem is one observation, as in the tables of evaluate.py (`papo.statistics.bootstrap_mean`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from papo.lab.grading import Category, Grade, from_plain, grade_responses, to_plain
from papo.parallel import Ranks
from papo.reporting.numbers import percent
from papo.statistics import Interval, bootstrap_mean
from papo.types import Policy, ProblemSource, PromptGroup, RolloutEngine, derive_seed, derive_seeds

PROMPTS_AT_ONCE = 64
"""Prompts encoded and rolled out together in an evaluation; bounds its memory."""
KEPT_PATCH_BYTES = 256 * 2**20
"""Patches that a run keeps between its evaluations, at most; 250 problems of each test set take 30 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetReport:
    """What became of the responses to one test set.

    Attributes:
        num_problems, num_responses: problems, and responses to each of them.
        accuracy: share with the boxed answer right, by luck or not.
        shares: every category, keyed by its name.
    """

    num_problems: int
    num_responses: int
    accuracy: Interval
    shares: Mapping[str, Interval]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabReport:
    """One report per test set, keyed by the set's name."""

    sets: Mapping[str, SetReport]

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dicts of plain numbers, ready for JSON."""
        return {name: asdict(report) for name, report in self.sets.items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> "LabReport":
        """Reads `to_dict` back."""
        return cls(
            sets={
                name: SetReport(
                    num_problems=one["num_problems"],
                    num_responses=one["num_responses"],
                    accuracy=Interval.from_dict(one["accuracy"]),
                    shares={key: Interval.from_dict(share) for key, share in one["shares"].items()},
                )
                for name, one in plain.items()
            }
        )

    def scalars(self) -> dict[str, float]:
        """Returns flat metrics, `<set>/accuracy` and `<set>/<category>`, for a logger."""
        return {
            f"{name}/{key}": share.value
            for name, report in self.sets.items()
            for key, share in {"accuracy": report.accuracy, **report.shares}.items()
        }


def summarize_grades(grades: Sequence[Sequence[Grade]], *, seed: int) -> SetReport:
    """Returns accuracy and the share of every category.

    Args:
        grades: one row per problem, one grade per response, all rows of one length.
        seed: of the bootstrap over problems.

    Raises:
        ValueError: there are no grades, or the rows differ in length.
    """
    lengths = {len(row) for row in grades}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "a report needs the same number of graded responses to every problem, at least one; "
            f"got rows of {sorted(lengths)}"
        )

    def over_problems(is_so: Callable[[Grade], bool]) -> Interval:
        return bootstrap_mean([sum(map(is_so, row)) / len(row) for row in grades], seed=seed)

    return SetReport(
        num_problems=len(grades),
        num_responses=lengths.pop(),
        accuracy=over_problems(lambda grade: grade.answer_right),
        shares={
            category.value: over_problems(lambda grade, one=category: grade.category is one)
            for category in Category
        },
    )


class EncodedPrompts:
    """Prompts of test sets, encoded when first asked for and kept: every evaluation of a run reads the same ones.

    Drawing, cutting and tokenising took four tenths of an evaluation, more than its forward passes.

    Args:
        policy: encodes.
        sets: the problems, by the names of their sets.
        most_bytes: of patches that are kept; what comes beyond them is encoded anew each time.
    """

    def __init__(
        self,
        policy: Policy,
        sets: Mapping[str, ProblemSource],
        *,
        most_bytes: int = KEPT_PATCH_BYTES,
    ) -> None:
        self.policy = policy
        self.sets = sets
        self.bytes_left = most_bytes
        self._kept: dict[tuple[str, int], PromptGroup] = {}

    def read(self, name: str, indices: Sequence[int]) -> list[PromptGroup]:
        """Returns the prompts of these problems of a set, in their order."""
        missing = [index for index in indices if (name, index) not in self._kept]
        new = self.policy.encode([self.sets[name][index] for index in missing]) if missing else ()
        found = dict(zip(missing, new, strict=True))
        groups = [found[index] if index in found else self._kept[name, index] for index in indices]
        for index, group in found.items():
            size = 0 if group.patches is None else group.patches.nbytes
            if size <= self.bytes_left:
                self._kept[name, index] = group
                self.bytes_left -= size
        return groups


def evaluate_lab(
    policy: Policy,
    engine: RolloutEngine,
    problem_sets: Mapping[str, ProblemSource],
    *,
    num_problems: int,
    num_responses: int,
    seed: int,
    ranks: Ranks,
    prompts: EncodedPrompts | None = None,
) -> LabReport:
    """Samples and grades responses to the first problems of every set; the ranks take turns.

    Equal seeds, sets and numbers give the same problems and the same sampling noise, so reports
    before and after training are paired.

    Args:
        policy: encodes the prompts; the one that `engine` samples from.
        engine: samples the responses at its own temperature.
        problem_sets: sources of PerceptionLab problems, by the name the report gives them.
        num_problems: read from the start of each set.
        num_responses: sampled per problem.
        seed: of the sampling, and of the intervals.
        ranks: the processes that share the work; all get the report.
        prompts: of `policy` and `problem_sets`, from an evaluation before this one.

    Raises:
        ValueError: a set holds fewer than `num_problems` problems.
    """
    for name, problems in problem_sets.items():
        if not 1 <= num_problems <= len(problems):
            raise ValueError(
                f"the set {name!r} holds {len(problems)} problems; got num_problems={num_problems}. "
                "Lower the number of evaluated problems or raise the size of the set."
            )

    prompts = prompts or EncodedPrompts(policy, problem_sets, most_bytes=0)

    def rolled_out(job: tuple[str, int, Sequence[int]]) -> list[list[dict[str, Any]]]:
        name, chunk_index, chunk = job
        groups = prompts.read(name, chunk)
        seeds = derive_seeds(derive_seed(seed, "lab", name, chunk_index), len(groups))
        texts = engine.sample(groups, num_responses, seeds).texts
        repeated = [group.problem for group in groups for _ in range(num_responses)]
        grades = [to_plain(grade) for grade in grade_responses(repeated, texts)]
        return [list(row) for row in _chunks(grades, num_responses)]

    jobs = [
        (name, chunk_index, chunk)
        for name in problem_sets
        for chunk_index, chunk in enumerate(_chunks(range(num_problems), PROMPTS_AT_ONCE))
    ]
    rows: dict[str, list[list[Grade]]] = {name: [] for name in problem_sets}
    for (name, _, _), found in zip(jobs, ranks.in_turn(jobs, rolled_out), strict=True):
        rows[name].extend([from_plain(grade) for grade in row] for row in found)
    return LabReport(
        sets={name: summarize_grades(grades, seed=seed) for name, grades in rows.items()}
    )


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def compare_reports(reports: Mapping[str, LabReport]) -> Table:
    """Returns a table of one section per test set and one column per report; fits 80 columns.

    Args:
        reports: e.g. {"before": ..., "after": ...}; all with the same test sets.
    """
    table = Table(title="PerceptionLab: share of responses in %, with 95 % intervals")
    table.add_column("test set")
    table.add_column("what became of it")
    for moment in reports:
        table.add_column(moment, justify="right")
    for set_name in next(iter(reports.values())).sets:
        sets = [report.sets[set_name] for report in reports.values()]
        table.add_section()
        table.add_row(set_name, "[bold]accuracy", *(percent(one.accuracy) for one in sets))
        for category in Category:
            label = category.replace("_", " ")
            table.add_row("", label, *(percent(one.shares[category]) for one in sets))
    return table


@dataclass(slots=True, kw_only=True, eq=False)
class LabHeldOut:
    """The lab's test sets as a run evaluates its policy on them; see `papo.training.HeldOut`.

    Attributes:
        sets: by the name that the report gives them.
        num_problems: read from the start of each set.
        num_responses: sampled per problem.
        seed: of the sampling, and of the intervals.
    """

    sets: Mapping[str, ProblemSource]
    num_problems: int
    num_responses: int
    seed: int
    _prompts: EncodedPrompts | None = field(default=None, init=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of `LabReport.scalars`."""
        shares = ("accuracy", *(category.value for category in Category))
        return tuple(f"{name}/{share}" for name in self.sets for share in shares)

    def evaluate(self, policy: Policy, engine: RolloutEngine, *, ranks: Ranks) -> LabReport:
        """Samples with the engine's own settings and grades; the ranks take turns."""
        if self._prompts is None or self._prompts.policy is not policy:
            self._prompts = EncodedPrompts(policy, self.sets)
        return evaluate_lab(
            policy,
            engine,
            self.sets,
            num_problems=self.num_problems,
            num_responses=self.num_responses,
            seed=self.seed,
            ranks=ranks,
            prompts=self._prompts,
        )

    def table(self, reports: Mapping[str, Mapping[str, Any]]) -> Table:
        """Returns `compare_reports` of what `LabReport.to_dict` returned."""
        return compare_reports(
            {moment: LabReport.from_dict(report) for moment, report in reports.items()}
        )
