"""summary.json: every number of an evaluation in one place; tables and reports only show it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from papo.evaluation.benchmark import Benchmark
from papo.evaluation.scores import SetScores, averages, groups_of_columns
from papo.evaluation.settings import EvaluationSettings, published_columns, published_rows
from papo.storage.responses import FinishedBatch

PAPO_EVAL = {
    "num_responses": 8,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 50,
    "max_response_tokens": 2048,
    "min_pixels": 1024,
    "max_pixels": 589_824,
    "limit": None,
    "grader": "mathruler",
}
"""How the published table was measured (PAPO-Eval @b57d909, run_infer.sh and the defaults it leaves)."""


def summarize(
    scores: Sequence[SetScores],
    *,
    benchmarks: Sequence[Benchmark],
    batches: Sequence[FinishedBatch],
    settings: EvaluationSettings,
    protocol: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    identities: Mapping[tuple[str, str], str],
) -> dict[str, Any]:
    """Returns plain values, ready for JSON and the same for the same responses. Shares are 0 to 1.

    Args:
        scores: of every benchmark and view.
        benchmarks: in the order of the tables.
        batches: say which problems were left out.
        settings: of the evaluation.
        protocol: the keys of `PAPO_EVAL` as they were, and more.
        checkpoint: as in run.json.
        identities: which problems several benchmarks share (`problem_identities`).
    """
    known = {benchmark.key: benchmark for benchmark in benchmarks}
    columns = {benchmark.published_column for benchmark in benchmarks} - {None}
    views = list(dict.fromkeys(one.view for one in scores))
    rows = []
    for one in scores:
        benchmark = known[one.benchmark]
        values = asdict(one)
        del values["per_problem"]
        rows.append(
            {
                "benchmark": one.benchmark,
                "label": benchmark.label,
                "group": benchmark.group,
                "published_column": benchmark.published_column,
                **values,
                "pass_at": {str(k): values["pass_at"][k] for k in one.pass_at},
                "num_left_out": sum(
                    batch.num_left_out
                    for batch in batches
                    if (batch.benchmark, batch.view) == (one.benchmark, one.view)
                ),
                "accuracy_by_grader": {name: one.accuracy_of(name) for name in one.verdicts},
            }
        )
    return {
        "checkpoint": dict(checkpoint),
        "protocol": dict(protocol),
        "deviations": deviations(protocol) if columns else [],
        "sets": rows,
        "empty": _empty(benchmarks, batches),
        "averages": _averages(scores, known, views, identities, settings.bootstrap_seed)
        if columns
        else [],
        "published": {name: _published(name) for name in settings.published} if columns else {},
    }


def deviations(protocol: Mapping[str, Any]) -> list[str]:
    """Returns where a protocol differs from that of the published table."""
    return [
        f"{name} is {protocol.get(name)}, PAPO-Eval's {published}"
        for name, published in PAPO_EVAL.items()
        if protocol.get(name) != published
    ]


def _empty(
    benchmarks: Sequence[Benchmark], batches: Sequence[FinishedBatch]
) -> list[dict[str, Any]]:
    """Benchmarks and views without a single response: no row of the table speaks of them."""
    found = []
    for benchmark in benchmarks:
        own = [batch for batch in batches if batch.benchmark == benchmark.key]
        for view in dict.fromkeys(batch.view for batch in own):
            some = [batch for batch in own if batch.view == view]
            if not any(batch.num_responses for batch in some):
                found.append(
                    {
                        "benchmark": benchmark.key,
                        "label": benchmark.label,
                        "view": view,
                        "num_left_out": sum(batch.num_left_out for batch in some),
                    }
                )
    return found


def _averages(
    scores: Sequence[SetScores],
    known: Mapping[str, Benchmark],
    views: Sequence[str],
    identities: Mapping[tuple[str, str], str],
    bootstrap_seed: int,
) -> list[dict[str, Any]]:
    found = []
    for view in views:
        by_column = {
            column: one
            for one in scores
            if one.view == view and (column := known[one.benchmark].published_column) is not None
        }
        for average in averages(by_column, identities=identities, bootstrap_seed=bootstrap_seed):
            found.append({"view": view, **asdict(average), "missing": list(average.missing)})
    return found


def _published(name: str) -> dict[str, float]:
    row = published_rows()[name]
    scores = dict(zip(published_columns(), row["scores"], strict=True))
    per_cent = {**scores, **{group: row[group] for group in groups_of_columns()}}
    return {column: round(score / 100, 6) for column, score in per_cent.items()}
