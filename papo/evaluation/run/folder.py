"""The folder of one evaluation: what it was started with, what is done, what came of it.

run.json         overrides, seed, git commit, versions, checkpoint, benchmarks; every start
config.yaml      the resolved configuration; config.json is the same
responses.jsonl  see papo.storage.responses, also for problems.jsonl, images/ and batches.csv
summary.json     every number; table.csv and report.md show them
result.json      status: finished, failed or interrupted
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from papo.evaluation.run.report import markdown, table_csv
from papo.rollout import SERVER_KEYS
from papo.storage.files import read_object, write_atomically, write_json
from papo.storage.provenance import require_same_settings, start_facts, with_start
from papo.storage.responses import TABLES
from papo.storage.run_folder import begin_run, holds_run, write_result

# Where the evaluation goes and who is evaluated: the weights themselves are compared instead.
_FREE_KEYS = (
    *("resume", "run_dir", "allow", "checkpoint", "num_threads", "devices", "num_nodes"),
    *SERVER_KEYS,
)
_FACTS = {"checkpoint": dict, "benchmarks": dict}
_RESTORE = "It says what {} the evaluation: restore it, or choose another run_dir."


class EvaluationFolder:
    """An evaluation's files, all but the growing tables; it refuses to mix two evaluations.

    Hold `papo.storage.files.locked` of the folder from `open` on.

    Args:
        path: the folder; `open` makes it if it is not there.
        config: the resolved configuration, plain values only.
        config_text: the same as the YAML text to keep.
        overrides: what the command line changed.
        checkpoint: what is known of the evaluated policy before it is loaded.
        benchmarks: of each its number of problems and, where it came from the hub, the commit.
        resume: continue the evaluation that the folder holds.
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
        self.config = config
        self.config_text = config_text
        self.overrides = overrides
        self.checkpoint = checkpoint
        self.benchmarks = {key: dict(facts) for key, facts in benchmarks.items()}
        self.resume = resume

    def is_done(self) -> bool:
        """Whether the evaluation that is asked for has come to its end here. Writes nothing.

        Raises:
            ValueError: the folder holds something and `resume` is off, an evaluation of another
                configuration, or a training run.
        """
        if not holds_run(self.path):
            return False
        run = self.run()
        if "checkpoint" not in run:
            raise ValueError(
                f"{self.path} holds a training run, no evaluation; choose another run_dir"
            )
        if not self.resume:
            raise ValueError(
                f"{self.path} already holds an evaluation. Continue it with resume=true, or choose "
                "another run_dir."
            )
        for before, now, free in (
            (self._settings(), self.config, _FREE_KEYS),
            ({"benchmark": run["benchmarks"]}, {"benchmark": self.benchmarks}, ()),
        ):
            require_same_settings(
                before,
                now,
                free=free,
                folder=self.path,
                remedy="Repeat the first command, or start a new run in another run_dir.",
            )
        return (self.path / "result.json").exists() and self.result()["status"] == "finished"

    def open(self) -> str | None:
        """Begins an evaluation, or goes on with the one that is here.

        Returns:
            A warning where it goes on with other code than before.

        Raises:
            ValueError: see `is_done`; or files are here and nothing says whose.
        """
        if holds_run(self.path):
            self.is_done()
            run, warning = with_start(self.run(), start_facts(self.overrides))
            write_json(self.path / "run.json", run)
            return warning
        begin_run(
            self.path,
            config=self.config,
            config_text=self.config_text,
            overrides=self.overrides,
            products=(*TABLES, "result.json"),
            checkpoint=dict(self.checkpoint),
            benchmarks=self.benchmarks,
        )
        return None

    def run(self) -> dict[str, Any]:
        """What run.json says."""
        run = read_object(
            self.path / "run.json", fields={"overrides": list}, remedy=_RESTORE.format("is")
        )
        if "checkpoint" in run:
            read_object(self.path / "run.json", fields=_FACTS, remedy=_RESTORE.format("is"))
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
            write_json(self.path / "run.json", run)
        elif known != weights:
            raise ValueError(
                f"the evaluation in {self.path} began with other weights, those of "
                f"{run['checkpoint']['location']}; name that one with checkpoint=, or start in another "
                "run_dir"
            )

    def write_result(self, status: str, **values: Any) -> None:
        """Writes result.json; `status` is finished, failed or interrupted."""
        write_result(self.path, self.run(), status, **values)

    def result(self) -> dict[str, Any]:
        """What result.json says."""
        return read_object(
            self.path / "result.json",
            fields={"status": str},
            remedy="Delete it: with resume=true the evaluation writes it again.",
        )

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json, table.csv and report.md."""
        write_json(self.path / "summary.json", summary)
        write_atomically(self.path / "table.csv", table_csv(summary))
        write_atomically(self.path / "report.md", markdown(summary))

    def summary(self) -> dict[str, Any]:
        """What summary.json of a finished evaluation says."""
        return read_object(
            self.path / "summary.json",
            fields={"sets": list},
            remedy="Delete result.json: with resume=true the evaluation writes both again.",
        )

    def _settings(self) -> dict[str, Any]:
        return read_object(self.path / "config.json", remedy=_RESTORE.format("was asked of"))
