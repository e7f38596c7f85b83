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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from papo.files import write_atomically
from papo.provenance import require_same_settings, run_facts
from papo.training.checkpoints import checkpoints, newest_checkpoint, remove_unfinished
from papo.training.tables import truncate_csv, truncate_jsonl

# Settings that change where a run goes and who watches it, not what it computes.
_FREE_KEYS = ("resume", "run_dir", "logger", "callbacks", "sweep")
_PRODUCTS = ("metrics.csv", "timings.csv", "rollouts.jsonl", "checkpoints", "result.json")


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
            require_same_settings(
                json.loads((path / "config.json").read_text("utf-8")),
                config,
                free=_FREE_KEYS,
                folder=path,
            )
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
            json.dumps(run_facts(overrides=overrides, seed=config.get("seed")), indent=2),
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
        return file.exists() and json.loads(file.read_text("utf-8"))["status"] == "finished"

    def write_result(self, status: str, **values: Any) -> None:
        """Writes result.json; `status` is finished, failed or interrupted."""
        run = json.loads((self.path / "run.json").read_text("utf-8"))
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
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
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
