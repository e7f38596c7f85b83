"""The folder of one evaluation: what it was started with, what is done, what came of it.

run.json         overrides, seed, git commit, versions, checkpoint, benchmarks
config.yaml      the resolved configuration; config.json is the same
responses.jsonl  see papo.evaluation.store, also for problems.jsonl, images/ and batches.csv
summary.json     every number; table.csv and report.md show them
result.json      status: finished, failed or interrupted
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from papo.evaluation.report import markdown, table_csv
from papo.evaluation.store import TABLES
from papo.files import write_atomically
from papo.provenance import require_same_settings, run_facts

# Where the evaluation goes and who is evaluated: the weights themselves are compared instead.
_FREE_KEYS = ("resume", "run_dir", "checkpoint", "num_threads")


class EvaluationFolder:
    """An evaluation's files, all but the growing tables. Opening refuses to mix two evaluations.

    Hold `papo.files.locked` of the folder while it is open.

    Args:
        path: the folder; made if it is not there.
        config: the resolved configuration, plain values only.
        config_text: the same as the YAML text to keep.
        overrides: what the command line changed.
        checkpoint: what is known of the evaluated policy before it is loaded.
        benchmarks: of each its number of problems and, where it came from the hub, the commit.
        resume: continue the evaluation that the folder holds.

    Raises:
        ValueError: the folder holds something and `resume` is off, or an evaluation of another
            configuration.
    """

    def __init__(
        self,
        path: Path,
        *,
        config: Mapping[str, Any],
        config_text: str,
        overrides: list[str],
        checkpoint: Mapping[str, Any],
        benchmarks: Mapping[str, Mapping[str, Any]],
        resume: bool,
    ) -> None:
        self.path = path
        holds_run = (path / "run.json").exists()
        if holds_run and "checkpoint" not in self.run():
            raise ValueError(f"{path} holds a training run, no evaluation; choose another run_dir")
        if holds_run and not resume:
            raise ValueError(
                f"{path} already holds an evaluation. Continue it with resume=true, or choose another "
                "run_dir."
            )
        if holds_run:
            require_same_settings(
                json.loads((path / "config.json").read_text("utf-8")),
                config,
                free=_FREE_KEYS,
                folder=path,
            )
            require_same_settings(
                {"benchmark": self.run()["benchmarks"]},
                {"benchmark": benchmarks},
                free=(),
                folder=path,
            )
            return
        if foreign := [name for name in (*TABLES, "result.json") if (path / name).exists()]:
            raise ValueError(
                f"{path} holds {foreign[0]} but no run.json, so it is not clear whose it is. Choose "
                "another run_dir, or empty this one."
            )
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / "config.yaml", config_text)
        write_atomically(path / "config.json", json.dumps(config, indent=2))
        # Written last: a folder is an evaluation once it says of what.
        self._write_run(
            {
                **run_facts(overrides=overrides, seed=config.get("seed")),
                "checkpoint": dict(checkpoint),
                "benchmarks": {key: dict(facts) for key, facts in benchmarks.items()},
            }
        )

    def run(self) -> dict[str, Any]:
        """What run.json says."""
        run: dict[str, Any] = json.loads((self.path / "run.json").read_text("utf-8"))
        return run

    def require_same_weights(self, weights: str) -> None:
        """Records the fingerprint of the evaluated weights, or compares it with the recorded one.

        Raises:
            ValueError: they are not the weights this evaluation began with.
        """
        run = self.run()
        known = run["checkpoint"].get("weights")
        if known is None:
            run["checkpoint"]["weights"] = weights
            self._write_run(run)
        elif known != weights:
            raise ValueError(
                f"the evaluation in {self.path} began with other weights, those of "
                f"{run['checkpoint']['location']}; name that one with checkpoint=, or start in another "
                "run_dir"
            )

    def is_finished(self) -> bool:
        """Whether the evaluation has come to its end."""
        return (self.path / "result.json").exists() and self.result()["status"] == "finished"

    def write_result(self, status: str, **values: Any) -> None:
        """Writes result.json; `status` is finished, failed or interrupted."""
        run = self.run()
        write_atomically(
            self.path / "result.json",
            json.dumps(
                {"status": status, "overrides": run["overrides"], "seed": run["seed"], **values},
                indent=2,
            ),
        )

    def result(self) -> dict[str, Any]:
        """What result.json says."""
        result: dict[str, Any] = json.loads((self.path / "result.json").read_text("utf-8"))
        return result

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json, table.csv and report.md."""
        write_atomically(self.path / "summary.json", json.dumps(summary, indent=2))
        write_atomically(self.path / "table.csv", table_csv(summary))
        write_atomically(self.path / "report.md", markdown(summary))

    def summary(self) -> dict[str, Any]:
        """What summary.json of a finished evaluation says."""
        summary: dict[str, Any] = json.loads((self.path / "summary.json").read_text("utf-8"))
        return summary

    def _write_run(self, run: Mapping[str, Any]) -> None:
        write_atomically(self.path / "run.json", json.dumps(run, indent=2))
