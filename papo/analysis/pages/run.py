"""The page of one training run: how it went, what it wrote, what it looked at.

One HTML file without a script, from files alone; finished, failed and running runs all have one. It is
`SECTIONS`, one after another: a new part of the page is a function from a run to Markup, and a line there.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from papo.analysis.pages.rollout_view import ROLLOUT_STYLE, rollout_group
from papo.analysis.pages.run_curves import (
    NO_ROLLOUT,
    OUTCOMES,
    leading_curves,
    more_curves,
    steps_of,
)
from papo.analysis.pages.term_gradients import term_gradients
from papo.reporting.charts import (
    Chart,
    Dot,
    Row,
    Series,
    area_chart,
    dot_chart,
)
from papo.reporting.html import (
    Markup,
    code,
    details,
    grid,
    join,
    page,
    paragraph,
    section,
    table,
)
from papo.reporting.numbers import finite
from papo.reporting.tokens import colour_key
from papo.statistics import (
    COLLAPSE_RULE,
    FALL,
    LOST_FORM,
    PERCEPTION_KL,
    SOUND_FALL,
    SOUND_LOST_FORM,
    SOUND_PERCEPTION_KL,
    judge_collapse,
)
from papo.storage.training_run import TrainingRun, read_training_run

GROUPS_OF_EACH_KIND = 2
"""First, last, best and worst prompts shown; bounds the size of the page."""
MAX_CONFIG_CHARACTERS = 200_000


PHASES: Mapping[str, str] = {
    "rollout": "rollout: reading, masking, sampling",
    "reward": "reward: grading",
    "score": "score: reference and masked log-probabilities",
    "update": "update: forward, backward, optimiser",
}

_SHOWN_SHARE = 0.02  # what became of fewer responses, before and after, is in the table alone


def build_run_page(folder: Path) -> str:
    """Returns the HTML page of a run folder.

    Raises:
        ValueError: the folder holds no training run.
    """
    run = read_training_run(folder, groups_of_each_kind=GROUPS_OF_EACH_KIND)
    bodies = {(anchor, heading): build(run) for anchor, heading, build in SECTIONS}
    return page(
        f"Run {'/'.join(folder.resolve().parts[-2:])}",
        join([_overview(run), *(section(*key, body) for key, body in bodies.items() if body)]),
        contents=dict(key for key, body in bodies.items() if body),
        style=ROLLOUT_STYLE,
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
    reward = run.metrics.get("reward/mean", ())
    lines = [
        f"Started {run.facts.get('started', 'at an unknown time')}, seed {run.facts.get('seed')}."
    ]
    if finite(reward):
        first, last = _ends(reward)
        lines.append(
            f"Reward {first:.3f} in the first tenth of the rollouts, {last:.3f} in the last."
        )
    if run.timings:
        total = sum(sum(finite(values)) for name, values in run.timings.items() if name in PHASES)
        lines.append(f"{_duration(total)} of training.")
    return join(
        [
            paragraph(run_status(run), kind="" if finished else "notice"),
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
        charts, tables = zip(*_evaluated_sets(evaluation), strict=True)
    except (TypeError, KeyError, AttributeError, ValueError):
        return paragraph(
            "The evaluation in result.json is damaged and was left out.", kind="notice"
        )
    return join([grid(charts, kind="few"), details("The numbers", *tables)], "\n")


def _evaluated_sets(evaluation: Mapping[str, Any]) -> Iterator[tuple[Chart, Markup]]:
    """A chart and a table per held-out set; see LabReport.to_dict."""
    moments = list(evaluation)
    for name in evaluation[moments[0]]:
        reports = [evaluation[moment][name] for moment in moments]
        shares = [{"accuracy": report["accuracy"], **report["shares"]} for report in reports]
        of = (
            f"share of {reports[0]['num_responses']} responses to each of "
            f"{reports[0]['num_problems']} problems"
        )
        rows = {key: [share[key] for share in shares] for key in shares[0]}
        told = [
            Row(
                name=key.replace("_", " "),
                dots=[
                    Dot(value=100 * one["value"], narrow=(100 * one["low"], 100 * one["high"]))
                    for one in row
                ],
            )
            for key, row in rows.items()
            if max(one["value"] for one in row) >= _SHOWN_SHARE
        ]
        yield (
            dot_chart(
                str(name), told, moments, along="% of the responses, 95 % intervals", reach=(0, 100)
            ),
            table(
                f"{name}: {of}, in %, with 95 % intervals over problems",
                ["what became of it", *moments],
                [[key.replace("_", " "), *map(_percent, row)] for key, row in rows.items()],
            ),
        )


def _percent(share: Mapping[str, float]) -> str:
    # A narrow column breaks before the interval, not within it.
    return "{:.1f} [{:.1f},\u00a0{:.1f}]".format(
        *(100 * share[key] for key in ("value", "low", "high"))
    )


def _collapse(run: TrainingRun) -> Markup:
    if not run.metrics.get("rollout_step"):
        return paragraph(NO_ROLLOUT)
    found = judge_collapse(run.metrics)
    said = "No collapse."
    if found:
        said = f"Collapsed at rollout {found.rollout}: beyond the limit of {' and of '.join(found.signs)}."
    signs = [
        ("accuracy below its best tenth so far", "standard errors", found.fall, SOUND_FALL, FALL),
        (
            "perception KL",
            "nats per token",
            found.perception_kl,
            SOUND_PERCEPTION_KL,
            PERCEPTION_KL,
        ),
        (
            "badly formatted above the best tenth so far",
            "% of responses",
            100 * found.lost_form,
            100 * SOUND_LOST_FORM,
            100 * LOST_FORM,
        ),
    ]
    chart = dot_chart(
        "Signs of a collapse: the most of any tenth of the rollouts",
        [
            Row(
                name=name.split(" below")[0].split(" above")[0],
                dots=[None if most is None else Dot(value=most / limit), Dot(value=sound / limit)],
            )
            for name, _, most, sound, limit in signs
        ],
        ["this run", "sound runs of the lab, at most"],
        along="times the limit",
        reference=1.0,
        reach=(0.0, 2.0),
    )
    numbers = table(
        "The most of any tenth of the rollouts; two beyond their limits at once are a collapse",
        ["", "this run", "sound runs of the lab, at most", "limit"],
        [
            [
                f"{name}, {unit}",
                "not computed" if most is None else f"{most:.3g}",
                f"{sound:g}",
                f"{limit:g}",
            ]
            for name, unit, most, sound, limit in signs
        ],
    )
    rang = [step for step, one in enumerate(run.metrics.get("safeguard/alarm", ()), 1) if one > 0]
    return join(
        [
            paragraph(said, kind="notice" if found else ""),
            *[paragraph(f"The run's safeguard rang first at rollout {one}.") for one in rang[:1]],
            paragraph(COLLAPSE_RULE),
            grid([chart, numbers], kind="few"),
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
        if any(finite(columns.get(column, ())))
    ]
    if not layers:
        return paragraph(NO_ROLLOUT)
    numbers = table(
        "Share of responses in %, means over the first and the last tenth of the rollouts",
        ["outcome", "first tenth", "last tenth"],
        [
            [layer.name, *(f"{100 * value:.1f}" for value in _ends(layer.values))]
            for layer in reversed(layers)
        ],
    )
    chart = area_chart("Share of responses", steps_of(run), layers, is_percent=True)
    return grid([chart, numbers], kind="few")


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
            colour_key("right after the update"),
            *(rollout_group(chosen, run.folder) for chosen in run.groups),
        ],
        "\n",
    )


def _timings(run: TrainingRun) -> Markup:
    phases = {name: run.timings[name] for name in PHASES if finite(run.timings.get(name, ()))}
    if not phases:
        return paragraph("No rollout has been timed yet.")
    total = sum(sum(finite(values)) for values in phases.values())
    steps = [int(step) for step in run.timings["rollout_step"]]
    lines = [Series(name=name, values=values) for name, values in phases.items()]
    numbers = table(
        "Wall time of the phases",
        ["phase", "median, s per rollout", "share of the whole, %"],
        [
            [
                PHASES[name],
                f"{statistics.median(finite(values)):.3g}",
                f"{100 * sum(finite(values)) / total:.1f}" if total > 0 else "",
            ]
            for name, values in phases.items()
        ],
    )
    return details(
        f"{_duration(total)} altogether",
        grid([area_chart("Seconds per rollout", steps, lines), numbers], kind="few"),
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
            code("\n".join(command) or "nothing"),
            details(
                "Seed, commit and versions",
                table("What the run was made with", ["", "value"], rows),
            ),
            details("The whole configuration, resolved", code(text))
            if text
            else paragraph("config.yaml is missing.", kind="notice"),
        ],
        "\n",
    )


SECTIONS: Sequence[tuple[str, str, Callable[[TrainingRun], Markup]]] = (
    ("before-and-after", "Before and after", _evaluation),
    ("curves", "What matters", leading_curves),
    ("collapse", "Collapse", _collapse),
    ("terms", "What each term does", term_gradients),
    ("errors", "What became of the responses", _outcomes),
    ("rollouts", "Rollouts", _rollouts),
    ("more", "More curves", more_curves),
    ("timings", "Timings", _timings),
    ("configuration", "Configuration", _configuration),
)
"""Anchor, heading, and what makes the section of a run; one that makes nothing is left out."""


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Means over the first and the last tenth, at least one value each; NaN where none is finite."""
    count = max(1, len(values) // 10)
    ends = (finite(values[:count]), finite(values[-count:]))
    first, last = (statistics.fmean(end) if end else math.nan for end in ends)
    return first, last


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
