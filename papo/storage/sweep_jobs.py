"""The jobs of a sweep as their folders tell them: which arm each is, how it ended, and what is damaged."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from papo.storage.files import DamagedFile, read_object

REPEAT = "Restore it, or move the job's folder away and repeat the command of the sweep."


@dataclass(slots=True, kw_only=True)
class SweepJob:
    """A job as its folder tells it."""

    path: Path
    folder: str
    sweep: Mapping[str, Any]
    overrides: list[str]
    seed: int | None
    status: str
    reason: str
    commit: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


def read_job(path: Path, root: Path) -> SweepJob | None:
    """None for an evaluation, which has a run.json too."""
    folder = path.relative_to(root).as_posix()
    try:
        run = read_object(path / "run.json", remedy=REPEAT)
        if "checkpoint" in run:
            return None
        read_object(path / "run.json", fields={"overrides": list, "seed": int}, remedy=REPEAT)
        config = read_object(path / "config.json", remedy=REPEAT)
        result = path / "result.json"
        end = read_object(result, fields={"status": str}, remedy=REPEAT) if result.exists() else {}
        return SweepJob(
            path=path,
            folder=folder,
            sweep=_sweep_of(config, path / "config.json"),
            overrides=[str(override) for override in run["overrides"]],
            seed=run["seed"],
            status=end.get("status", "unfinished"),
            reason=str(end.get("error", "")),
            commit=run.get("git_commit"),
            config=config,
        )
    except (ValueError, KeyError, AttributeError, TypeError, OSError) as error:
        return SweepJob(
            path=path, folder=folder, overrides=[], status="damaged",
            reason=reason_of(error), **_named_by_folder(path.relative_to(root)),
        )  # fmt: skip


def _sweep_of(config: Mapping[str, Any], file: Path) -> Mapping[str, Any]:
    sweep = config.get("sweep") or {}
    kinds = {"name": str, "arm": str, "published": dict, "arms": dict}
    if not isinstance(sweep, dict) or any(
        not isinstance(sweep.get(key), kind | None) for key, kind in kinds.items()
    ):
        raise DamagedFile(f"{file} is damaged: sweep is {str(sweep)[:80]!r}. {REPEAT}")
    return sweep


def reason_of(error: Exception) -> str:
    """What is wrong with a job's files; a message that names its file speaks for itself."""
    if isinstance(error, DamagedFile | FileNotFoundError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _named_by_folder(folder: Path) -> dict[str, Any]:
    """What ARM/seed_N (conf/sweep/common/job.yaml) says where the files do not."""
    if len(folder.parts) > 1 and (seed := re.fullmatch(r"seed_(\d+)", folder.name)):
        return {"sweep": {"arm": folder.parts[-2]}, "seed": int(seed[1])}
    return {"sweep": {}, "seed": None}


def read_failure(file: Path, root: Path) -> SweepJob:
    """A job that failed before it was a run; its arm is the folder it was to have."""
    try:
        failure = read_object(file, fields={"overrides": list}, remedy=REPEAT)
        overrides, reason = [str(one) for one in failure["overrides"]], str(failure["error"])
    except (ValueError, KeyError, OSError) as error:
        overrides, reason = [], reason_of(error)
    folder = file.parent.relative_to(root)
    seeds = [value for key, value in map(_split, overrides) if key == "seed" and value.isdigit()]
    is_sweep = any(key == "+sweep" for key, _ in map(_split, overrides))
    return SweepJob(
        path=file.parent, folder=folder.as_posix(), overrides=overrides,
        sweep={"arm": folder.parts[-2]} if is_sweep and len(folder.parts) > 1 else {},
        seed=int(seeds[-1]) if seeds else None, status="failed", reason=reason,
    )  # fmt: skip


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key, value


def arms_of(jobs: Sequence[SweepJob]) -> list[str]:
    """The arm each job belongs to: as its sweep calls it, or the overrides in which jobs differ."""
    settings = [
        {k: v for k, v in map(_split, job.overrides) if k not in ("seed", "run_dir", "resume")}
        for job in jobs
    ]
    keys = list(dict.fromkeys(key for each in settings for key in each))
    # A damaged job has lost its overrides, which does not mean that it had none.
    known = [each for job, each in zip(jobs, settings, strict=True) if job.status != "damaged"]
    differ = [key for key in keys if len({each.get(key) for each in known}) > 1]
    return [
        str(
            job.sweep.get("arm")
            or ", ".join(f"{key.lstrip('+')}={each[key]}" for key in differ if key in each)
            or "as configured"
        )
        for job, each in zip(jobs, settings, strict=True)
    ]


def arm_order(folder: Path, jobs: Sequence[SweepJob], arms: set[str]) -> tuple[str, ...]:
    """The arms as the sweep lists them: its table of arms, or the values it varied."""
    if table := next((job.sweep["arms"] for job in jobs if job.sweep.get("arms")), None):
        return tuple(map(str, table))
    try:
        multirun = yaml.safe_load((folder / "multirun.yaml").read_text("utf-8"))
        params = multirun["hydra"]["sweeper"]["params"].values()
        # Written out, what a damaged record holds instead of a value may be longer than memory.
        lists = [str(one).split(",") for one in params if isinstance(one, str | int | float)]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        # No multirun of Hydra's, or a damaged record of one: it only decides the order of rows.
        return ()
    return next((tuple(values) for values in lists if arms <= set(values)), ())
