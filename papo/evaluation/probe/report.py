"""Sums up the perception KL of many responses: perception_kl_summary.json and perception_kl.md."""

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from papo.evaluation.probe.token_divergence import TokenDivergence
from papo.evaluation.token_weights import TOP_SHARE, TokenWeight, carried_by_top, top_tokens
from papo.reporting.markdown_text import markdown_table
from papo.reporting.numbers import interval_text, no_interval, percent
from papo.statistics import Interval, bootstrap_mean, t_interval
from papo.storage.files import write_atomically, write_json

ALL = "all benchmarks"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanOverProblems:
    """A mean of numbers that are no shares, with its t interval: None for one problem, or where all agree."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSummary:
    """The perception KL of one kind of responses to one benchmark, or to all pooled.

    A problem counts once, with the mean over its responses; intervals are over problems.

    Attributes:
        benchmark, kind: which.
        num_problems, num_responses, num_tokens: scored.
        kl_exact, kl_k3: mean over the tokens of a response, nats per token.
        variance_exact, variance_k3: over the tokens of a response.
        top_share: share of a response's exact KL that its most dependent fifth of tokens carries; 0.2
            where all tokens weigh the same. None where no response has any KL.
        same_length: share of own responses whose tokens could be restored in number; None for
            references.
        top_tokens: those that carry most of the exact KL.
    """

    benchmark: str
    kind: str
    num_problems: int
    num_responses: int
    num_tokens: int
    kl_exact: MeanOverProblems
    kl_k3: MeanOverProblems
    variance_exact: MeanOverProblems
    variance_k3: MeanOverProblems
    top_share: Interval | None
    same_length: float | None
    top_tokens: tuple[TokenWeight, ...]


def summarize_probe(
    divergences: Iterable[TokenDivergence], *, bootstrap_seed: int
) -> tuple[ProbeSummary, ...]:
    """Returns a summary per benchmark and kind, and of all benchmarks where there are several."""
    groups: dict[tuple[str, str], list[TokenDivergence]] = defaultdict(list)
    for one in divergences:
        groups[one.benchmark, one.kind].append(one)
    benchmarks = {benchmark for benchmark, _ in groups}
    if len(benchmarks) > 1:
        for kind in dict.fromkeys(kind for _, kind in groups):
            groups[ALL, kind] = [
                one for (_, other), some in groups.items() if other == kind for one in some
            ]
    return tuple(
        _summarize(benchmark, kind, some, bootstrap_seed)
        for (benchmark, kind), some in groups.items()
    )


def _summarize(
    benchmark: str, kind: str, divergences: Sequence[TokenDivergence], seed: int
) -> ProbeSummary:
    by_problem: dict[tuple[str, str], list[TokenDivergence]] = defaultdict(list)
    for one in divergences:
        by_problem[one.benchmark, one.problem_id].append(one)

    def per_problem(values: Mapping[int, float]) -> list[float]:
        """Means over a problem's responses; responses without a value are out."""
        known = (
            [values[id(one)] for one in some if id(one) in values] for some in by_problem.values()
        )
        return [statistics.fmean(some) for some in known if some]

    def over_problems(measure: Callable[[TokenDivergence], float]) -> MeanOverProblems:
        numbers = per_problem({id(one): measure(one) for one in divergences})
        found = t_interval(numbers, bounds=(0.0, math.inf))
        return MeanOverProblems(
            value=statistics.fmean(numbers),
            low=found.low if found else None,
            high=found.high if found else None,
        )

    top_shares = {
        id(one): share
        for one in divergences
        if (share := carried_by_top(one.kl_exact, TOP_SHARE)) is not None
    }
    carried = per_problem(top_shares)
    return ProbeSummary(
        benchmark=benchmark,
        kind=kind,
        num_problems=len(by_problem),
        num_responses=len(divergences),
        num_tokens=sum(len(one.tokens) for one in divergences),
        kl_exact=over_problems(lambda one: statistics.fmean(one.kl_exact)),
        kl_k3=over_problems(lambda one: statistics.fmean(one.kl_k3)),
        variance_exact=over_problems(lambda one: statistics.pvariance(one.kl_exact)),
        variance_k3=over_problems(lambda one: statistics.pvariance(one.kl_k3)),
        top_share=bootstrap_mean(carried, seed=seed) if carried else None,
        same_length=None
        if kind == "reference"
        else statistics.fmean(bool(one.same_length) for one in divergences),
        top_tokens=top_tokens((one.tokens, one.kl_exact) for one in divergences),
    )


_COLUMNS = (
    *("benchmark", "responses", "problems", "number"),
    *("exact KL", "k3", "variance (exact)", "top fifth, %"),
)
_TOKEN_COLUMNS = ("token", "count", "mean exact KL", "share of the KL, %")


def write_probe_summary(summaries: Sequence[ProbeSummary], folder: Path) -> None:
    """Writes perception_kl_summary.json and perception_kl.md."""
    write_json(folder / "perception_kl_summary.json", [asdict(one) for one in summaries])
    write_atomically(folder / "perception_kl.md", probe_markdown(summaries))


def probe_markdown(summaries: Sequence[ProbeSummary]) -> str:
    """Returns the summary as Markdown."""
    lines = [
        "# Which words depend on the picture",
        "",
        "Perception KL in nats per token, mean over the masks; exact over the vocabulary, and the k3 "
        "estimate of training, which estimates the KL on own responses alone. Variance over the tokens of a "
        "response. Top fifth: the share of a response's exact KL that its most dependent fifth of tokens "
        "carries. Intervals are 95 % over problems.",
        "",
        markdown_table(_COLUMNS, [*map(_cells, summaries)], texts=2),
    ]
    for one in summaries:
        if one.same_length is not None and one.same_length < 1.0:
            lines += [
                "",
                f"{one.benchmark}: {100 * one.same_length:.1f} % of the own responses have as many tokens "
                "as were sampled; the others' text is cut into tokens differently than it was written.",
            ]
    for one in summaries:
        lines += ["", f"## {one.benchmark}, {one.kind}: the tokens that carry most of the KL", ""]
        rows = [
            (
                _quoted(weight.token),
                str(weight.count),
                f"{weight.mean_kl:.3g}",
                percent(weight.share_of_kl),
            )
            for weight in one.top_tokens
        ]
        lines.append(markdown_table(_TOKEN_COLUMNS, rows, texts=1))
    return "\n".join(lines) + "\n"


def _cells(one: ProbeSummary) -> tuple[str, ...]:
    return (
        *(one.benchmark, one.kind, str(one.num_problems), str(one.num_responses)),
        *map(_mean, (one.kl_exact, one.kl_k3, one.variance_exact)),
        percent(one.top_share),
    )


def _mean(found: MeanOverProblems) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:.3g} {no_interval()}"
    return interval_text(
        {"value": found.value, "low": found.low, "high": found.high}, "{:.3g}".format
    )


def _quoted(token: str) -> str:
    """A token as a cell: quoted, so that new lines and spaces show; a table shows several as one."""
    return repr(token).replace("  ", r"\x20\x20")
