"""Compares two evaluations problem by problem: what became better, what worse, and how surely."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from papo.evaluation.scores import is_solved
from papo.statistics import (
    Difference,
    Interval,
    benjamini_hochberg,
    bootstrap_mean,
    bootstrap_mean_of_means,
    mcnemar_exact,
    paired_bootstrap,
)
from papo.storage.files import read_object
from papo.storage.responses import problem_identities, read_responses
from papo.views import masked_ratio

ProblemKey = tuple[str, str]
"""Benchmark and problem id."""

POOLED = "all problems"

# What the difference of two runs must not come from; the seed and the number of problems may differ.
_PROTOCOL = (
    *("num_responses", "temperature", "top_p", "top_k", "max_response_tokens"),
    *("min_pixels", "max_pixels"),
)
_NAMED = 5  # items that a message names


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedEvaluation:
    """The verdicts of one evaluation in one view.

    Attributes:
        name: what the user called its folder.
        view: which responses were read.
        verdicts: whether each of the k responses to a problem is right.
        references: the reference answers.
        settings: how it was sampled and graded, by the key of the configuration.
        identities: which problems are the same in several benchmarks (`problem_identities`).
    """

    name: str
    view: str
    verdicts: Mapping[ProblemKey, tuple[bool, ...]]
    references: Mapping[ProblemKey, str]
    settings: Mapping[str, Any]
    identities: Mapping[ProblemKey, str]

    @property
    def num_responses(self) -> int:
        return len(next(iter(self.verdicts.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class SetComparison:
    """Two runs on the problems of one benchmark, or of all.

    Problems are sorted by whether they are solved, which takes more than half of the k responses; a
    tie is not solved. Of one response per problem that is its verdict.

    Attributes:
        benchmark: its key, or `POOLED`.
        num_problems: compared.
        first, second: avg@k of each run.
        difference: second minus first, paired by problem.
        difference_q: Benjamini-Hochberg over benchmarks; None where pooled.
        fixed: solved by the second run alone.
        broken: solved by the first run alone.
        still_solved, still_unsolved: by both and by neither.
        mcnemar_p: exact, of fixed against broken.
        mcnemar_q: Benjamini-Hochberg over benchmarks; None where pooled.
    """

    benchmark: str
    num_problems: int
    first: Interval
    second: Interval
    difference: Difference
    difference_q: float | None
    fixed: tuple[str, ...]
    broken: tuple[str, ...]
    still_solved: tuple[str, ...]
    still_unsolved: tuple[str, ...]
    mcnemar_p: float
    mcnemar_q: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs on the same problems.

    Attributes:
        first, second: the folders' names.
        view: which responses were compared.
        num_responses: k.
        benchmarks: one comparison each.
        pooled: all problems in one, whatever their benchmark.
        mean_difference: unweighted mean of the benchmarks' differences; None with a single benchmark.
        left_out: problems of the first and of the second run that the other lacks, where only common
            ones were asked for.
        other_settings: settings in which the runs differ, where that was allowed.
    """

    first: str
    second: str
    view: str
    num_responses: int
    benchmarks: tuple[SetComparison, ...]
    pooled: SetComparison
    mean_difference: Interval | None
    left_out: tuple[int, int]
    other_settings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dicts and lists of plain values, ready for JSON."""
        return asdict(self)


def read_evaluation(folder: Path, *, view: str) -> FinishedEvaluation:
    """Reads a finished evaluation.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no evaluation, an unfinished one, or no whole set of responses in `view`.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; name one that evaluate.py wrote")
    if not (folder / "responses.jsonl").is_file():
        raise ValueError(
            f"{folder} holds no evaluation (no responses.jsonl); run evaluate.py checkpoint=... first"
        )
    result = _read_json(folder / "result.json")
    if result.get("status") != "finished":
        raise ValueError(
            f"the evaluation in {folder} is {result.get('status', 'unfinished')}, so it lacks problems; "
            f"finish it with evaluate.py run_dir={folder} resume=true"
        )
    rows: dict[ProblemKey, dict[int, bool]] = {}
    references: dict[ProblemKey, str] = {}
    views: dict[str, None] = {}
    for record in read_responses(folder):
        views[record.view] = None
        if record.view != view:
            continue
        key = (record.benchmark, record.problem_id)
        row = rows.setdefault(key, {})
        if record.response_index in row:
            raise ValueError(
                f"{folder / 'responses.jsonl'} holds response {record.response_index} to "
                f"{_name(key)} twice; evaluate again"
            )
        row[record.response_index] = record.correct
        references[key] = record.reference
    if not rows:
        raise ValueError(
            f"{folder} holds no response in the view {view!r}; it has "
            f"{', '.join(views) or 'none at all'}. Choose another --view, or evaluate with views="
        )
    num_responses = max(map(len, rows.values()))
    if ragged := [key for key, row in rows.items() if set(row) != set(range(num_responses))]:
        raise ValueError(
            f"{folder} lacks responses to {_some(ragged)}; others have {num_responses}. Evaluate again."
        )
    return FinishedEvaluation(
        name=str(folder),
        view=view,
        verdicts={
            key: tuple(row[index] for index in range(num_responses)) for key, row in rows.items()
        },
        references=references,
        settings=_read_settings(folder, view),
        identities=problem_identities(folder),
    )


def compare_evaluations(
    first: FinishedEvaluation,
    second: FinishedEvaluation,
    *,
    common_only: bool,
    any_settings: bool,
    seed: int,
) -> Comparison:
    """Returns the paired comparison of two evaluations.

    Args:
        first: what it is compared with.
        second: what is compared.
        common_only: leave out problems that one of them lacks, instead of refusing.
        any_settings: compare runs that were sampled or graded differently, instead of refusing.
        seed: of the bootstrap.

    Raises:
        ValueError: they have different problems, references, settings or numbers of responses, or no
            problem in common; the message says which and the way out.
    """
    keys, different = comparable_problems(
        first, second, common_only=common_only, any_settings=any_settings
    )
    by_benchmark: dict[str, list[ProblemKey]] = {}
    for key in keys:
        by_benchmark.setdefault(key[0], []).append(key)
    sets = [
        _compare_set(benchmark, first, second, some, [id for _, id in some], seed)
        for benchmark, some in by_benchmark.items()
    ]
    return Comparison(
        first=first.name,
        second=second.name,
        view=first.view,
        num_responses=first.num_responses,
        benchmarks=_with_q_values(sets),
        pooled=_compare_set(POOLED, first, second, keys, list(map(_name, keys)), seed),
        mean_difference=_mean_difference(first, second, by_benchmark, seed),
        left_out=(len(first.verdicts) - len(keys), len(second.verdicts) - len(keys)),
        other_settings=tuple(different),
    )


def comparable_problems(
    first: FinishedEvaluation, second: FinishedEvaluation, *, common_only: bool, any_settings: bool
) -> tuple[list[ProblemKey], list[str]]:
    """Returns the problems of both evaluations, and the settings in which they differ.

    Args:
        first: what is compared with.
        second: what is compared.
        common_only: leave out problems that one of them lacks, instead of refusing.
        any_settings: allow runs that were sampled or graded differently, instead of refusing.

    Raises:
        ValueError: see `compare_evaluations`.
    """
    if first.num_responses != second.num_responses:
        raise ValueError(
            f"two runs are compared with equally many responses to a problem; {first.name} has "
            f"{first.num_responses}, {second.name} has {second.num_responses}. Evaluate one again with "
            "rollout.num_responses="
        )
    different = _different_settings(first, second)
    if different and not any_settings:
        raise ValueError(
            f"{first.name} and {second.name} were not measured alike: {'; '.join(different)}. Evaluate "
            "one again, or allow it with --any-settings"
        )
    keys = [key for key in first.verdicts if key in second.verdicts]
    if not common_only:
        _require_same_problems(first, second)
    if not keys:
        raise ValueError(f"{first.name} and {second.name} have no problem in common")
    if changed := [key for key in keys if first.references[key] != second.references[key]]:
        raise ValueError(
            f"{first.name} and {second.name} have different reference answers for {_some(changed)}, so "
            "these are not the same problems; evaluate both on one version of the data"
        )
    return keys, different


def _compare_set(
    benchmark: str,
    first: FinishedEvaluation,
    second: FinishedEvaluation,
    keys: Sequence[ProblemKey],
    names: Sequence[str],
    seed: int,
) -> SetComparison:
    before, after = ([fmean(run.verdicts[key]) for key in keys] for run in (first, second))
    sorted_names: dict[tuple[bool, bool], list[str]] = {}
    for key, name in zip(keys, names, strict=True):
        solved = (is_solved(first.verdicts[key]), is_solved(second.verdicts[key]))
        sorted_names.setdefault(solved, []).append(name)
    fixed, broken, solved_twice, never = (
        tuple(sorted_names.get(solved, ()))
        for solved in ((False, True), (True, False), (True, True), (False, False))
    )
    return SetComparison(
        benchmark=benchmark,
        num_problems=len(keys),
        first=bootstrap_mean(before, seed=seed),
        second=bootstrap_mean(after, seed=seed),
        difference=paired_bootstrap(before, after, seed=seed),
        difference_q=None,
        fixed=fixed,
        broken=broken,
        still_solved=solved_twice,
        still_unsolved=never,
        mcnemar_p=mcnemar_exact(len(broken), len(fixed)),
        mcnemar_q=None,
    )


def _with_q_values(sets: Sequence[SetComparison]) -> tuple[SetComparison, ...]:
    differences = benjamini_hochberg([one.difference.p_value for one in sets])
    moves = benjamini_hochberg([one.mcnemar_p for one in sets])
    return tuple(
        replace(one, difference_q=difference_q, mcnemar_q=mcnemar_q)
        for one, difference_q, mcnemar_q in zip(sets, differences, moves, strict=True)
    )


def _mean_difference(
    first: FinishedEvaluation,
    second: FinishedEvaluation,
    by_benchmark: Mapping[str, Sequence[ProblemKey]],
    seed: int,
) -> Interval | None:
    if len(by_benchmark) == 1:
        return None
    differences = [
        [fmean(second.verdicts[key]) - fmean(first.verdicts[key]) for key in keys]
        for keys in by_benchmark.values()
    ]
    names = [[first.identities.get(key, key) for key in keys] for keys in by_benchmark.values()]
    return bootstrap_mean_of_means(differences, names=names, seed=seed, bounds=(-1.0, 1.0))


def _require_same_problems(first: FinishedEvaluation, second: FinishedEvaluation) -> None:
    hint = "Evaluate both on the same problems, or compare those they share with --common"
    for run, other in ((first, second), (second, first)):
        others = {benchmark for benchmark, _ in other.verdicts}
        lone = dict.fromkeys(key[0] for key in run.verdicts if key[0] not in others)
        if lone:
            raise ValueError(f"only {run.name} was evaluated on {', '.join(lone)}. {hint}")
    for run, other in ((first, second), (second, first)):
        if missing := [key for key in run.verdicts if key not in other.verdicts]:
            raise ValueError(
                f"{len(missing)} problems are in {run.name} alone: {_some(missing)}. {hint}"
            )


def _read_settings(folder: Path, view: str) -> dict[str, Any]:
    """How the evaluation was sampled (summary.json), asked, shown and graded (config.json)."""
    try:
        protocol = _read_json(folder / "summary.json")["protocol"]
        config = _read_json(folder / "config.json")
        settings = {key: protocol.get(key) for key in _PROTOCOL}
        for key, one in config["benchmark"]["sets"].items():
            settings[f"benchmark.sets.{key}.grader"] = one["grader"]
            settings[f"benchmark.sets.{key}.problems.prompt_suffix"] = one.get("problems", {}).get(
                "prompt_suffix"
            )
        for key, one in config.get("views", {}).items():
            if key == view or one.get("ratio", -1.0) == masked_ratio(view):
                shown = {name: value for name, value in one.items() if name != "seed"}
                settings[f"the view {view}"] = shown
        return settings
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{folder} does not say how it was sampled and graded (summary.json, config.json), so it "
            "cannot be compared; evaluate again"
        ) from error


def _different_settings(first: FinishedEvaluation, second: FinishedEvaluation) -> list[str]:
    # A benchmark that one of them lacks is another matter: its problems differ.
    return [
        f"{key} is {first.settings[key]!r} and {second.settings[key]!r}"
        for key in first.settings
        if key in second.settings and first.settings[key] != second.settings[key]
    ]


def _read_json(file: Path) -> dict[str, Any]:
    """An object; empty where there is no such file."""
    return read_object(file, remedy="Evaluate again.") if file.exists() else {}


def _name(key: ProblemKey) -> str:
    return "/".join(key)


def _some(keys: Sequence[ProblemKey]) -> str:
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return ", ".join(map(_name, keys[:_NAMED])) + more
