"""The folder of one run: what it was started with, where it stands, what came of it.

run.json        command, overrides, git commit, versions, seed
config.yaml     the resolved configuration
metrics.csv     one row per rollout, reproducible to the bit
timings.csv     wall time of the phases of each rollout
rollouts.jsonl  what the policy wrote, with pictures in rollouts/
checkpoints/    the newest few, one per rollout boundary
non_finite/     the batch that broke a run, if one did
result.json     status and final numbers, also after a failure
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from papo.training.checkpoints import checkpoints, newest_checkpoint, remove_unfinished
from papo.training.tables import truncate_csv, truncate_jsonl

# Settings that change where a run goes and who watches it, not what it computes.
_FREE_KEYS = ("resume", "run_dir", "logger", "callbacks")
_PRODUCTS = ("metrics.csv", "timings.csv", "rollouts.jsonl", "checkpoints", "result.json")
_PACKAGES = ("papo", "torch", "transformers", "lightning", "hydra-core", "numpy", "pillow")


class RunFolder:
    """A run's files. Opening refuses to mix two runs.

    Args:
        path: the folder; made if it is not there.
        config: the resolved configuration, plain values only.
        config_text: the same as the YAML text to keep.
        overrides: what the command line changed.
        resume: continue the run that the folder holds.

    Raises:
        ValueError: the folder holds a run and `resume` is off, or holds one of another
            configuration.
    """

    def __init__(
        self,
        path: Path,
        *,
        config: Mapping[str, Any],
        config_text: str,
        overrides: list[str],
        resume: bool,
    ) -> None:
        self.path = path
        holds_run = (path / "run.json").exists()
        if holds_run and not resume:
            raise ValueError(
                f"{path} already holds a run. Continue it with resume=true, or choose another run_dir."
            )
        if holds_run:
            _require_same(json.loads((path / "config.json").read_text()), config, path)
            self._forget_unfinished_work()
            return
        if foreign := [name for name in _PRODUCTS if (path / name).exists()]:
            raise ValueError(
                f"{path} holds {foreign[0]} but no run.json, so it is not clear whose it is. Choose "
                "another run_dir, or empty this one."
            )
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / "config.yaml", config_text)
        write_atomically(path / "config.json", json.dumps(config, indent=2))
        # Written last: a folder is a run once it says what the run is.
        write_atomically(
            path / "run.json",
            json.dumps(
                {
                    "started": datetime.now(UTC).isoformat(timespec="seconds"),
                    "overrides": overrides,
                    "seed": config.get("seed"),
                    "git_commit": git_commit(),
                    "versions": versions(),
                },
                indent=2,
            ),
        )

    @property
    def checkpoint_folder(self) -> Path:
        return self.path / "checkpoints"

    def latest_checkpoint(self) -> Path | None:
        """The newest whole checkpoint, or None before the first."""
        return newest_checkpoint(self.checkpoint_folder)

    def is_finished(self) -> bool:
        """Whether the run has come to its end."""
        file = self.path / "result.json"
        return file.exists() and json.loads(file.read_text())["status"] == "finished"

    def write_result(self, status: str, **values: Any) -> None:
        """Writes result.json; `status` is finished, failed or interrupted."""
        run = json.loads((self.path / "run.json").read_text())
        write_atomically(
            self.path / "result.json",
            json.dumps(
                {"status": status, "overrides": run["overrides"], "seed": run["seed"], **values},
                indent=2,
            ),
        )

    def last_metrics(self) -> dict[str, float]:
        """The last row of metrics.csv, empty before the first rollout."""
        file = self.path / "metrics.csv"
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) < 2:
            return {}
        values = [float(cell) for cell in lines[-1].split(",")]
        return dict(zip(lines[0].split(","), values, strict=True))

    def _forget_unfinished_work(self) -> None:
        """Drops what was written after the newest checkpoint: it will be done, and written, again."""
        remove_unfinished(self.checkpoint_folder)
        finished = max(checkpoints(self.checkpoint_folder), default=0)
        truncate_csv(self.path / "metrics.csv", finished)
        truncate_csv(self.path / "timings.csv", finished)
        truncate_jsonl(self.path / "rollouts.jsonl", finished)


def write_atomically(path: Path, text: str) -> None:
    """Writes the whole file or leaves the old one."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def git_commit() -> str | None:
    """The commit of the source tree, "-dirty" appended where it was edited; None outside git."""
    source = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=source, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        commit = git("rev-parse", "HEAD")
        return (
            f"{commit}-dirty"
            if git("status", "--porcelain", "--", source.parent.as_posix())
            else commit
        )
    except (OSError, subprocess.SubprocessError):
        return None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _require_same(old: Mapping[str, Any], new: Mapping[str, Any], path: Path) -> None:
    before, after = dict(_flatten(old)), dict(_flatten(new))
    changed = [
        f"{key} was {before.get(key, 'unset')!r}, is {after.get(key, 'unset')!r}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and key.split(".")[0] not in _FREE_KEYS
    ]
    if changed:
        raise ValueError(
            f"resume=true continues a run with the settings it began with; in {path} "
            + "; ".join(changed[:5])
            + (f"; and {len(changed) - 5} more" if len(changed) > 5 else "")
            + ". Repeat the first command, or start a new run in another run_dir."
        )


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
