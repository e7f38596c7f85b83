"""The curves of a training run: which columns of metrics.csv share a chart, and which of the charts lead."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from papo.analysis.watched_curves import WATCHED
from papo.reporting.charts import Chart, Limit, Scale, Series, line_chart
from papo.reporting.html import Markup, details, grid, paragraph
from papo.reporting.numbers import finite
from papo.statistics import PERCEPTION_KL, badly_formatted
from papo.storage.training_run import TrainingRun

NO_ROLLOUT = "No rollout has finished yet."


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Columns of metrics.csv that share a chart.

    Attributes:
        title: unit included.
        columns: column -> name of its line.
        scale: of the values.
        is_percent: they are shares.
        limit: that they should stay below.
    """

    title: str
    columns: Mapping[str, str]
    scale: Scale = "linear"
    is_percent: bool = False
    limit: Limit | None = None


LEADING = (
    Curves(
        title="Right answers, share of responses",
        columns={
            "reward/correct": "trained on",
            "resample/drawn_correct": "all drawn",
            "validation/accuracy": "held out",
        },
        is_percent=True,
    ),
    Curves(title="Reward", columns={"reward/mean": "mean"}),
    Curves(
        title="Perception KL, nats per token",
        columns={"loss/perception_kl": "perception KL"},
        scale="log",
        limit=Limit(value=PERCEPTION_KL, text="limit of a collapse"),
    ),
    Curves(
        title="Entropy, nats per token",
        columns={
            "policy/sampled_entropy": "with the picture",
            "policy/sampled_masked_entropy": "with the masked picture",
        },
        scale="auto",
    ),
    Curves(
        title="Tokens of a response",
        columns={"response/tokens_mean": "mean", "response/tokens_max": "longest"},
    ),
    Curves(title="Norm of the gradient", columns={"update/grad_norm": "norm"}, scale="auto"),
)

MORE = (
    Curves(
        title="KL to the reference, nats per token", columns={"loss/kl_ref": "KL"}, scale="auto"
    ),
    Curves(
        title="Clipped tokens, share",
        columns={
            "policy/clip_fraction_high": "above",
            "policy/clip_fraction_low": "below",
            "policy/clip_fraction_dual": "dual",
        },
        is_percent=True,
    ),
    Curves(
        title="Responses that ended by themselves, share",
        columns={"response/finished": "finished"},
        is_percent=True,
    ),
    Curves(
        title="Groups whose rewards are all equal, share",
        columns={"reward/uniform_groups": "uniform"},
        is_percent=True,
    ),
)

# bottom to top; column -> (name, colour)
OUTCOMES: Mapping[str, tuple[str, int]] = {
    "right and read": ("right", 3),
    "reward/correct_but_misread": ("right although misread", 5),
    "reward/error_perception": ("perception error", 2),
    "reward/error_reasoning": ("reasoning error", 4),
    "reward/error_calculation": ("calculation error", 1),
    "reward/error_inconsistent": ("inconsistent", 6),
    "reward/error_format": ("format error", 7),
}


def leading_curves(run: TrainingRun) -> Markup:
    """Returns the charts that say how a run goes."""
    charts = _charts(run, LEADING)
    return grid(charts) if charts else paragraph(NO_ROLLOUT)


def more_curves(run: TrainingRun) -> Markup:
    """Returns the other curves, folded; of those that never move, what they are."""
    drawn = {column for curves in (*LEADING, *MORE) for column in curves.columns}
    watched = [
        Curves(
            title=", ".join(filter(None, [name[:1].upper() + name[1:], curve.unit])),
            columns={curve.column: name},
            scale="auto",
        )
        for name, curve in WATCHED.items()
        if curve.column not in drawn
    ]
    moving, flat = [], []
    for curves in (*MORE, *watched):
        values = [v for column in curves.columns for v in _column(run, column)]
        if len({round(value, 12) for value in finite(values)}) == 1 and len(values) > 1:
            flat.append(f"{curves.title}: {finite(values)[0]:.3g}")
        else:
            moving.append(curves)
    charts = _charts(run, moving)
    parts = [grid(charts)] if charts else []
    if flat:
        parts.append(paragraph(f"All the time the same: {'; '.join(flat)}."))
    return details("Clipping, groups, variance", *parts) if parts else Markup()


def _charts(run: TrainingRun, some: Sequence[Curves]) -> list[Chart]:
    charts, seen = [], set()
    for curves in some:
        lines: list[Series] = []
        for column, name in curves.columns.items():
            values = _column(run, column)
            # What was trained on is what was drawn, unless groups were dropped; a reward may be its accuracy.
            if values and values not in seen and (finite(values) or not lines):
                seen.add(values)
                lines.append(Series(name=name, values=values))
        if lines:
            is_reward = _column(run, "reward/mean") in [line.values for line in lines]
            charts.append(
                line_chart(
                    f"Reward: {curves.title.lower()}"
                    if is_reward and "reward/mean" not in curves.columns
                    else curves.title,
                    steps_of(run),
                    lines,
                    scale=curves.scale,
                    is_percent=curves.is_percent,
                    limit=curves.limit,
                )
            )
    return charts


def _column(run: TrainingRun, column: str) -> tuple[float, ...]:
    if column == "reward/error_format":
        return tuple(badly_formatted(run.metrics))
    return run.metrics.get(column, ())


def steps_of(run: TrainingRun) -> list[int]:
    """Returns the rollouts of the rows of metrics.csv."""
    return [int(step) for step in run.metrics["rollout_step"]]
