"""Reads the run folders of a sweep: what each job was, what it measured, and which jobs are missing."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from papo.statistics import ACCURACY_COLUMNS
from papo.storage.files import read_object
from papo.storage.kept_runs import read_kept_runs
from papo.storage.provenance import flatten_settings
from papo.storage.sweep_jobs import (
    REPEAT,
    SweepJob,
    arm_order,
    arms_of,
    read_failure,
    read_job,
    reason_of,
)
from papo.storage.sweep_runs import (
    PUBLISHED_AVERAGES,
    LostRun,
    Sweep,
    SweepRun,
    natural_order,
    require_comparable,
    responses_drawn,
    window,
)
from papo.storage.tables import read_numbers


def is_one_sweep(folder: Path) -> bool:
    """Returns whether a folder is what the jobs of one sweep share, and not runs of several kinds."""
    if (folder / "multirun.yaml").is_file():
        return True
    jobs = [job for file in folder.rglob("run.json") if (job := read_job(file.parent, folder))]
    names = {job.sweep.get("name", "") for job in jobs if job.status != "damaged"}
    return (len(names) == 1 and names != {""}) or (not jobs and any(folder.rglob("failure.json")))


def read_sweep(folder: Path) -> Sweep:
    """Reads every run below a folder, or a file of `keep_runs`; nothing but files is needed.

    Scores of a run: "accuracy_curve", the mean accuracy over all its rollouts; "accuracy_end", over
    the last tenth of them; on PerceptionLab, for both held-out sets, "accuracy, SET", "perception
    errors, SET" (of the responses) and "perception share of errors, SET" (of the wrong ones);
    "responses_drawn"; in nats, "perception_kl_end", over the last tenth of the rollouts, and
    "perception_kl_max", the largest of a rollout; "format_errors_end", over the last tenth; and
    general, vision and overall, where an evaluation below the run's folder has these averages.

    Raises:
        ValueError: no folder, no finished job, several sweeps, two runs of one arm and seed, or runs
            of different length.
        DamagedFile: a file that `keep_runs` did not write.
    """
    if folder.is_file():
        return read_kept_runs(folder)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; a report reads what train.py -m wrote")
    jobs = [
        job for file in sorted(folder.rglob("run.json")) if (job := read_job(file.parent, folder))
    ]
    failures = [
        job
        for file in sorted(folder.rglob("failure.json"))
        if not (file.parent / "run.json").exists()
        for job in [read_failure(file, folder)]
    ]
    # What is damaged does not say which sweep it is of.
    names = sorted({job.sweep.get("name", "") for job in jobs if job.status != "damaged"})
    if len(names) > 1:
        raise ValueError(
            f"{folder} holds several sweeps ({', '.join(name or 'unnamed' for name in names)}); "
            "give the folder of one"
        )
    arms = arms_of([*jobs, *failures])
    order = arm_order(folder, jobs, set(arms))
    runs, lost = [], []
    for job, arm in zip([*jobs, *failures], arms, strict=True):
        if job.status == "finished":
            try:
                runs.append(_finished(job, arm))
                continue
            except (
                ValueError,
                TypeError,
                KeyError,
                AttributeError,
                OSError,
                StopIteration,
            ) as error:
                job.status, job.reason = "damaged", reason_of(error)
        lost.append(
            LostRun(folder=job.folder, arm=arm, seed=job.seed, status=job.status, reason=job.reason)
        )
    if not runs:
        raise ValueError(
            f"{folder} holds no finished job ({len(lost)} without a result"
            + (f"; the first: {lost[0].folder} {lost[0].status} {lost[0].reason}" if lost else "")
            + "). Repeat the command of the sweep: it goes on where it stopped."
        )
    require_comparable(runs)
    first = next(job for job in jobs if job.status == "finished")
    published = first.sweep.get("published") or {}
    return Sweep(
        name=names[0] or folder.resolve().name,
        runs=tuple(runs),
        lost=(*lost, *_missing(runs, lost)),
        published={arm: tuple(rows) for arm, rows in published.items()},
        arm_order=order,
    )


def _finished(job: SweepJob, arm: str) -> SweepRun:
    curves = read_numbers(job.path / "metrics.csv", remedy=REPEAT)
    assert job.seed is not None, "a finished run has a seed"
    accuracies = next(curves[name] for name in ACCURACY_COLUMNS if name in curves)
    settings = dict(flatten_settings(job.config))
    scores = {
        "accuracy_curve": _mean(accuracies),
        "accuracy_end": _mean(accuracies[-window(accuracies) :]),
        **_cost_and_stability(curves, settings),
        **_lab_scores(read_object(job.path / "result.json", remedy=REPEAT)),
        **_evaluation_scores(job.path),
    }
    if broken := [name for name, score in scores.items() if not math.isfinite(score)]:
        raise ValueError(f"{broken[0]} is {scores[broken[0]]}, which is no result")
    return SweepRun(
        folder=job.folder,
        arm=arm,
        seed=job.seed,
        curves=curves,
        scores=scores,
        commit=job.commit,
        settings=settings,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _cost_and_stability(
    curves: Mapping[str, tuple[float, ...]], settings: Mapping[str, Any]
) -> dict[str, float]:
    scores = {}
    if drawn := responses_drawn(curves, settings):
        scores["responses_drawn"] = drawn[-1]
    if perception := curves.get("loss/perception_kl"):
        scores["perception_kl_end"] = _mean(perception[-window(perception) :])
        scores["perception_kl_max"] = max(perception)
    if errors := curves.get("reward/error_format"):
        scores["format_errors_end"] = _mean(errors[-window(errors) :])
    return scores


def _lab_scores(result: Mapping[str, Any]) -> dict[str, float]:
    after = (result.get("evaluation") or {}).get("after") or {}
    scores = {}
    for name, report in after.items():
        scores[f"accuracy, {name}"] = float(report["accuracy"]["value"])
        # Of benchmarks that know their errors.
        if "perception" not in report["shares"]:
            continue
        perception = float(report["shares"]["perception"]["value"])
        scores[f"perception errors, {name}"] = perception
        if wrong := 1.0 - scores[f"accuracy, {name}"]:
            scores[f"perception share of errors, {name}"] = perception / wrong
    return scores


def _evaluation_scores(path: Path) -> dict[str, float]:
    """The averages of Table 1 over the full images, from evaluations below a run's folder."""
    scores: dict[str, float] = {}
    for file in sorted(path.rglob("summary.json")):
        summary = read_object(file, remedy="Evaluate again.")
        for average in summary.get("averages", ()):
            name, interval = average["name"], average["interval"]
            if name in PUBLISHED_AVERAGES and average["view"] == "image" and interval is not None:
                if name in scores:
                    raise ValueError(f"two evaluations of {path.name} have {name}; keep one")
                scores[name] = float(interval["value"])
    return scores


def _missing(runs: Sequence[SweepRun], lost: Sequence[LostRun]) -> list[LostRun]:
    """The jobs of the grid of all arms and seeds that left no trace."""
    there = {(run.arm, run.seed) for run in runs} | {(job.arm, job.seed) for job in lost}
    # A job of no known seed may be any of its arm.
    grid = [(arm, seed) for arm, seed in there if seed is not None]
    arms, seeds = {arm for arm, _ in grid}, {seed for _, seed in grid}
    return [
        LostRun(folder="", arm=arm, seed=seed, status="missing", reason="")
        for arm in sorted(arms, key=natural_order)
        for seed in sorted(seeds)
        if (arm, seed) not in there
    ]
