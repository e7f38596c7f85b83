"""The page of one training run: how it went, what it wrote, what it looked at.

One HTML file without a script, from files alone; finished, failed and running runs all have one.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from papo.analysis.pages.rollout_view import ROLLOUT_STYLE, colour_key, rollout_group
from papo.analysis.watched_curves import WATCHED
from papo.reporting.charts import CHART_STYLE, Series, area_chart, line_chart
from papo.reporting.html import Markup, details, join, page, paragraph, section, table
from papo.statistics import (
    COLLAPSE_RULE,
    FALL,
    LOST_FORM,
    PERCEPTION_KL,
    Collapse,
    badly_formatted,
    judge_collapse,
)
from papo.storage.training_run import TrainingRun, read_training_run

GROUPS_OF_EACH_KIND = 2
"""First, last, best and worst prompts shown; bounds the size of the page."""
MAX_CONFIG_CHARACTERS = 200_000

# title, unit included -> column of metrics.csv -> name of its line
CURVES: Mapping[str, Mapping[str, str]] = {
    "Reward": {"reward/mean": "mean"},
    "Share of right answers": {
        "reward/correct": "trained on",
        "resample/drawn_correct": "all drawn",
    },
    "Accuracy on held-out problems": {"validation/accuracy": "mean over the sets"},
    "Perception KL, nats per token": {"loss/perception_kl": "perception KL"},
    "Entropy, nats per token": {
        "policy/sampled_entropy": "with the picture",
        "policy/sampled_masked_entropy": "with the masked picture",
    },
    "KL to the reference, nats per token": {"loss/kl_ref": "KL"},
    "Share of clipped tokens": {
        "policy/clip_fraction_high": "above",
        "policy/clip_fraction_low": "below",
        "policy/clip_fraction_dual": "dual",
    },
    "Norm of the gradient": {"update/grad_norm": "norm"},
    "Tokens of a response": {"response/tokens_mean": "mean", "response/tokens_max": "longest"},
    "Share of responses that ended by themselves": {"response/finished": "finished"},
    "Share of groups whose rewards are all equal": {"reward/uniform_groups": "uniform"},
}

_DRAWN_ABOVE = frozenset(column for columns in CURVES.values() for column in columns)

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

PHASES: Mapping[str, str] = {
    "rollout": "rollout: reading, masking, sampling",
    "reward": "reward: grading",
    "score": "score: reference and masked log-probabilities",
    "update": "update: forward, backward, optimiser",
}


def build_run_page(folder: Path) -> str:
    """Returns the HTML page of a run folder.

    Raises:
        ValueError: the folder holds no training run.
    """
    run = read_training_run(folder, groups_of_each_kind=GROUPS_OF_EACH_KIND)
    sections = {
        ("before-and-after", "Before and after"): _evaluation(run),
        ("curves", "Curves"): _curves(run),
        ("collapse", "Collapse"): _collapse(run),
        ("errors", "What became of the responses"): _outcomes(run),
        ("rollouts", "Rollouts"): _rollouts(run),
        ("timings", "Timings"): _timings(run),
        ("configuration", "Configuration"): _configuration(run),
    }
    return page(
        f"Run {'/'.join(folder.resolve().parts[-2:])}",
        join([_overview(run), *(section(*key, body) for key, body in sections.items())]),
        contents=dict(sections.keys()),
        style=CHART_STYLE + ROLLOUT_STYLE,
    )


def run_status(run: TrainingRun) -> str:
    """Returns one sentence: how the run ended, or that it has not."""
    done = len(run.metrics.get("rollout_step", ()))
    of = (
        f"{done} rollouts"
        if run.planned_rollouts is None
        else f"{done} of {run.planned_rollouts} rollouts"
    )
    if run.result is None:
        return f"Unfinished: {of}. The run is still going on, or was killed."
    status = str(run.result.get("status"))
    if status == "finished":
        return f"Finished: {of}."
    return f"{status.capitalize()} after {of}: {str(run.result.get('error', 'no reason recorded'))[:2_000]}"


def _overview(run: TrainingRun) -> Markup:
    finished = run.result is not None and run.result.get("status") == "finished"
    status = run_status(run)
    reward = run.metrics.get("reward/mean", ())
    lines = [
        f"Started {run.facts.get('started', 'at an unknown time')}, seed {run.facts.get('seed')}."
    ]
    if _finite(reward):
        first, last = _ends(reward)
        lines.append(
            f"Reward {first:.3f} in the first tenth of the rollouts, {last:.3f} in the last."
        )
    if run.timings:
        total = sum(sum(_finite(values)) for name, values in run.timings.items() if name in PHASES)
        lines.append(f"{_duration(total)} of training.")
    return join(
        [
            paragraph(
                Markup("<strong>{}</strong>").format(status), kind="" if finished else "notice"
            ),
            paragraph(" ".join(lines)),
            *(paragraph(note, kind="notice") for note in run.notes),
        ],
        "\n",
    )


def _evaluation(run: TrainingRun) -> Markup:
    evaluation = (run.result or {}).get("evaluation")
    if not evaluation:
        return paragraph("This run holds no evaluation: evaluate.py makes one of any checkpoint.")
    try:
        return Markup('<div class="side-by-side">{}</div>').format(
            join(_evaluation_tables(evaluation), "\n")
        )
    except (TypeError, KeyError, AttributeError, ValueError):
        return paragraph(
            "The evaluation in result.json is damaged and was left out.", kind="notice"
        )


def _evaluation_tables(evaluation: Mapping[str, Any]) -> list[Markup]:
    """One table per held-out set; see LabReport.to_dict."""
    moments = list(evaluation)
    tables = []
    for name in evaluation[moments[0]]:
        reports = [evaluation[moment][name] for moment in moments]
        shares = [{"accuracy": report["accuracy"], **report["shares"]} for report in reports]
        tables.append(
            table(
                f"{name}: share of {reports[0]['num_responses']} responses to each of "
                f"{reports[0]['num_problems']} problems, in %, with 95 % intervals over problems",
                ["what became of it", *moments],
                [
                    [key.replace("_", " "), *(_percent(share[key]) for share in shares)]
                    for key in shares[0]
                ],
            )
        )
    return tables


def _percent(share: Mapping[str, float]) -> str:
    # A narrow column breaks before the interval, not within it.
    return "{:.1f} [{:.1f},\u00a0{:.1f}]".format(
        *(100 * share[key] for key in ("value", "low", "high"))
    )


def _curves(run: TrainingRun) -> Markup:
    charts = []
    for title, columns in CURVES.items():
        lines = [
            Series(name=name, values=run.metrics[column])
            for column, name in columns.items()
            if column in run.metrics
        ]
        # What was trained on is what was drawn, unless groups were dropped.
        if len(lines) == 2 and lines[0].values == lines[1].values:
            lines = lines[:1]
        if lines and lines[0].values:
            charts.append(line_chart(title, _steps(run), lines))
    return _grid(charts)


def _collapse(run: TrainingRun) -> Markup:
    columns = {**run.metrics, "reward/error_format": tuple(badly_formatted(run.metrics))}
    watched = {
        name: curve
        for name, curve in WATCHED.items()
        if curve.column not in _DRAWN_ABOVE and _finite(columns.get(curve.column, ()))
    }
    if not run.metrics.get("rollout_step"):
        return _grid([])
    charts = []
    for name, curve in watched.items():
        title = f"{name}, {curve.unit}" if curve.unit else name
        line = Series(name=name, values=columns[curve.column])
        charts.append(line_chart(title[:1].upper() + title[1:], _steps(run), [line]))
    return join(
        [
            _verdict(judge_collapse(run.metrics)),
            paragraph(
                "Look at the curves of the perception KL, the entropies and clipping above too. None decides alone: "
                "a sound policy moves some of them."
            ),
            _grid(charts),
        ],
        "\n",
    )


def _verdict(found: Collapse) -> Markup:
    said = "No collapse."
    if found:
        said = f"Collapsed at rollout {found.rollout}: beyond the limit of {' and of '.join(found.signs)}."
    rows = [
        ["accuracy below its best tenth so far, standard errors", f"{found.fall:.1f}", f"{FALL:g}"],
        [
            "perception KL, nats per token",
            "not computed" if found.perception_kl is None else f"{found.perception_kl:.3g}",
            f"{PERCEPTION_KL:g}",
        ],
        [
            "badly formatted responses above the best tenth so far, %",
            f"{100 * found.lost_form:.1f}",
            f"{100 * LOST_FORM:g}",
        ],
    ]
    return join(
        [
            paragraph(Markup("<strong>{}</strong>").format(said), kind="notice" if found else ""),
            paragraph(COLLAPSE_RULE),
            table(
                "The most of any tenth of the rollouts; two beyond their limits at once are a collapse",
                ["", "most", "limit"],
                rows,
            ),
        ],
        "\n",
    )


def _outcomes(run: TrainingRun) -> Markup:
    columns = {**run.metrics}
    if not any(name.startswith("reward/error_") for name in columns):
        return paragraph(
            "The reward of this run names no kinds of error; analyze.py finds them in an evaluation."
        )
    right = columns.get("reward/accuracy", ())
    misread = columns.get("reward/correct_but_misread", (0.0,) * len(right))
    columns["right and read"] = tuple(a - b for a, b in zip(right, misread, strict=True))
    layers = [
        Series(name=name, values=columns[column], colour=colour)
        for column, (name, colour) in OUTCOMES.items()
        if _finite(columns.get(column, ()))
    ]
    if not layers:
        return _grid([])
    return join(
        [
            _grid([area_chart("Share of responses", _steps(run), layers)], wide=True),
            table(
                "Share of responses in %, means over the first and the last tenth of the rollouts",
                ["outcome", "first tenth", "last tenth"],
                [
                    [layer.name, *(f"{100 * value:.1f}" for value in _ends(layer.values))]
                    for layer in reversed(layers)
                ],
            ),
        ],
        "\n",
    )


def _rollouts(run: TrainingRun) -> Markup:
    if not run.groups:
        return paragraph(
            "This run recorded no rollouts (yet); callbacks.rollout_table.every_rollouts says how often."
        )
    intro = (
        f"The first, last, best and worst {GROUPS_OF_EACH_KIND} prompts of those recorded, "
        "by mean reward; of equals the later ones."
    )
    return join(
        [
            paragraph(intro),
            colour_key(),
            *(rollout_group(chosen, run.folder) for chosen in run.groups),
        ],
        "\n",
    )


def _timings(run: TrainingRun) -> Markup:
    phases = {name: run.timings[name] for name in PHASES if _finite(run.timings.get(name, ()))}
    if not phases:
        return paragraph("No rollout has been timed yet.")
    total = sum(sum(_finite(values)) for values in phases.values())
    steps = [int(step) for step in run.timings["rollout_step"]]
    return join(
        [
            _grid(
                [
                    area_chart(
                        "Seconds per rollout",
                        steps,
                        [Series(name=name, values=values) for name, values in phases.items()],
                    )
                ],
                wide=True,
            ),
            table(
                f"Wall time of the phases; {_duration(total)} altogether",
                ["phase", "median, s per rollout", "share of the whole, %"],
                [
                    [
                        PHASES[name],
                        f"{statistics.median(_finite(values)):.3g}",
                        f"{100 * sum(_finite(values)) / total:.1f}" if total > 0 else "",
                    ]
                    for name, values in phases.items()
                ],
            ),
        ],
        "\n",
    )


def _configuration(run: TrainingRun) -> Markup:
    facts = run.facts
    overrides = facts.get("overrides")
    known_versions = facts.get("versions")
    rows: list[list[Any]] = [
        ["seed", facts.get("seed")],
        ["started", facts.get("started")],
        ["git commit", facts.get("git_commit") or "unknown: not run from a git checkout"],
    ]
    if isinstance(known_versions, dict):
        rows += [[str(name), version] for name, version in known_versions.items()]
    command = [str(override) for override in overrides] if isinstance(overrides, list) else []
    text = run.config_text[:MAX_CONFIG_CHARACTERS]
    return join(
        [
            paragraph("What the command line changed:"),
            Markup('<pre tabindex="0"><code>{}</code></pre>').format(
                "\n".join(command) or "nothing"
            ),
            table("What the run was made with", ["", "value"], rows),
            details(
                "The whole configuration, resolved",
                Markup('<pre tabindex="0"><code>{}</code></pre>').format(text),
            )
            if text
            else paragraph("config.yaml is missing.", kind="notice"),
        ],
        "\n",
    )


def _grid(charts: Sequence[Markup], *, wide: bool = False) -> Markup:
    if not charts:
        return paragraph("No rollout has finished yet.")
    return Markup('<div class="charts{}">{}</div>').format(
        " wide" if wide else "", join(charts, "\n")
    )


def _steps(run: TrainingRun) -> list[int]:
    return [int(step) for step in run.metrics["rollout_step"]]


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Means over the first and the last tenth, at least one value each; NaN where none is finite."""
    count = max(1, len(values) // 10)
    ends = (_finite(values[:count]), _finite(values[-count:]))
    first, last = (statistics.fmean(end) if end else math.nan for end in ends)
    return first, last


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
