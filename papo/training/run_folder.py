"""The folder of one run: what it was started with, where it stands, what came of it.

run.json        command, overrides, git commit, versions, seed; the same of every start, and the host
config.yaml     the resolved configuration; config.json is the same
problems.jsonl  hashes of the training problems (papo.training.data_fingerprint), none for the lab's
metrics.csv     one row per rollout, reproducible to the bit
timings.csv     wall time of the phases of each rollout
rollouts.jsonl  what the policy wrote, with pictures in rollouts/
evaluations.jsonl  a line per evaluation on held-out problems: before, every so many rollouts, after
faults.jsonl    what the terms, views and credits of the objective cannot do (docs/term_gradients.md)
safeguard.jsonl when the safeguard warned, steered and went back (docs/safeguard.md)
checkpoints/    the newest few, one per rollout boundary, and the best; best.json names that
non_finite/     the batch that broke a run, if one did
result.json     status and final numbers, also after a failure

Nothing is lost: what a resumed run takes out of a table is beside it in TABLE.cut-TIME, a damaged
checkpoint is NAME.damaged, and the result of a finished run that is continued is result_ROLLOUTS.json.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from papo.rollout import SERVER_KEYS
from papo.storage.files import DamagedFile, read_object, write_json
from papo.storage.provenance import require_same_settings, start_facts, with_start
from papo.storage.run_folder import begin_run, holds_run, write_config, write_result
from papo.storage.tables import (
    FAULTS,
    SAFEGUARD,
    first_missing_row,
    last_row,
    truncate_csv,
    truncate_jsonl,
)
from papo.training.checkpoints import (
    DamagedCheckpoint,
    checkpoints,
    newest_whole_checkpoint,
    put_aside,
    remove_unfinished,
    rollouts_before,
)
from papo.training.data_fingerprint import DataFingerprint
from papo.training.held_out import EVALUATIONS

# Settings that change where a run goes and who watches it, not what it computes.
PROCESS_KEYS = (
    *("trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.shard_size"),
    "trainer.offload_while_sampling",
    *SERVER_KEYS,
)
"""Which processes do the work; the run they do is the same."""

_FREE_KEYS = ("resume", "run_dir", "allow", "logger", "callbacks", "sweep", *PROCESS_KEYS)

LENGTH_KEY = "training.num_rollouts"

_WRITE_AGAIN = (
    "Delete it: with resume=true the run goes on from its last checkpoint and writes it again."
)
_TABLES = ("metrics.csv", "timings.csv", "rollouts.jsonl", EVALUATIONS, FAULTS, SAFEGUARD)
_PRODUCTS = (*_TABLES, "checkpoints", "result.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What one start of the command asks for.

    Attributes:
        config: the resolved configuration, plain values only.
        config_text: the same as the YAML text to keep.
        overrides: what the command line changed.
        resume: continue the run that the folder holds.
        sets_length: the command line itself says how many rollouts the run has, which may be more than
            it had; otherwise another number is a mistake.
    """

    config: Mapping[str, Any]
    config_text: str
    overrides: list[str]
    resume: bool
    sets_length: bool

    @property
    def num_rollouts(self) -> Any:
        """Rollouts of the whole run; settings are checked elsewhere, so it may be anything."""
        return self.config["training"]["num_rollouts"]


class RunFolder:
    """A run's files; it refuses to mix two runs. Hold `papo.storage.files.locked` of it from `open` on.

    Args:
        path: the folder; `open` makes it if it is not there.

    Attributes:
        checkpoint: where the run goes on from; None before the first, and before `open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint: Path | None = None
        self._damaged: list[DamagedCheckpoint] = []
        self._continues = False

    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return holds_run(self.path)

    def settings(self) -> dict[str, Any]:
        """The configuration of the run that the folder holds."""
        return read_object(
            self.path / "config.json",
            fields={"training": dict},
            remedy="It says with which settings the run goes on: restore it, or choose another run_dir.",
        )

    def is_done(self, start: Start) -> bool:
        """Whether the run that is asked for has come to its end here. Writes nothing.

        Raises:
            ValueError: the folder holds a run and `resume` is off, holds one of other settings, or one
                that has more rollouts than asked for.
        """
        if not self.holds_run():
            return False
        if not start.resume:
            raise ValueError(
                f"{self.path} already holds a run. Continue it with resume=true, or choose another "
                "run_dir."
            )
        self.run()
        require_same_settings(
            self.settings(),
            start.config,
            free=(*_FREE_KEYS, LENGTH_KEY) if start.sets_length else _FREE_KEYS,
            folder=self.path,
            remedy=f"With run_dir={self.path} resume=true and no setting it continues with its own; or "
            "start a new run in another run_dir.",
        )
        if not isinstance(start.num_rollouts, int):
            return False
        if start.num_rollouts < (done := self._rollouts_done()):
            raise ValueError(
                f"{self.path} has done {done} rollouts, so it cannot have {LENGTH_KEY}="
                f"{start.num_rollouts} of them; set more, or choose another run_dir"
            )
        # Not the same number: a callback may have ended the run before its last rollout.
        return self.is_finished() and not self.changes_length(start)

    def is_finished(self) -> bool:
        """Whether the run that is here has come to its end."""
        return self._finished_rollouts() is not None

    def changes_length(self, start: Start) -> bool:
        """Whether a run that was begun is to have another number of rollouts."""
        return (
            self.holds_run()
            and self.settings()["training"].get("num_rollouts") != start.num_rollouts
        )

    def open(self, start: Start) -> None:
        """Begins a run, or looks for where the one that is here goes on; then only `go_on` changes it.

        Raises:
            ValueError: see `is_done`; or the run is here and no whole checkpoint of it is left.
        """
        if self.is_done(start):
            return
        self._continues = self.holds_run()
        if self._continues:
            self.checkpoint, self._damaged = newest_whole_checkpoint(self.checkpoint_folder)
            self._require_somewhere_to_go_on()
            return
        begin_run(
            self.path,
            config=start.config,
            config_text=start.config_text,
            overrides=start.overrides,
            products=_PRODUCTS,
        )

    def compare_problems(self, problems: DataFingerprint) -> str | None:
        """Keeps what the training problems are, or compares them with those that the run began with.

        Returns:
            A line where they cannot be compared.

        Raises:
            ValueError: they are other problems.
        """
        file = self.path / "problems.jsonl"
        if not file.exists():
            problems.write(file)
            if self.checkpoint is None:
                return None
            return (
                f"{file.name} is missing, so the training problems cannot be compared with those this "
                "run began with; from here on they are"
            )
        if difference := problems.difference(file):
            raise ValueError(
                f"the training problems are not those that the run in {self.path} began with: "
                f"{difference}. Restore the data (data.path=), or start a new run in another run_dir."
            )
        return None

    def go_on(self, start: Start) -> list[str]:
        """Prepares the folder for the rollouts that are left; a new run's is prepared already.

        What was written after the checkpoint will be done, and written, again: it is taken out of the
        tables and kept beside them.

        Returns:
            Lines that say what was found and put aside.
        """
        if not self._continues:
            return []
        run, warning = with_start(self.run(), start_facts(start.overrides))
        notes = [warning] if warning else []
        remove_unfinished(self.checkpoint_folder)
        finished = 0 if self.checkpoint is None else rollouts_before(self.checkpoint)
        for damaged in self._damaged:
            kept = put_aside(damaged.path)
            notes.append(
                f"{damaged}; it is kept as {kept.name}, and the run goes on after rollout {finished}"
            )
        for name in _TABLES:
            truncate = truncate_jsonl if name.endswith(".jsonl") else truncate_csv
            if cut := truncate(self.path / name, finished):
                notes.append(str(cut))
            if name.endswith(".csv") and (missing := first_missing_row(self.path / name, finished)):
                notes.append(
                    f"{name} has lost rows: rollout {missing} of the {finished} that are done is not in it"
                )
        if self.changes_length(start):
            before = self.settings()["training"]["num_rollouts"]
            notes.append(f"{LENGTH_KEY} was {before}, is {start.num_rollouts}")
            if (end := self._finished_rollouts()) is not None:
                os.replace(self.path / "result.json", self.path / f"result_{end:06d}.json")
            write_config(self.path, start.config, start.config_text)
        write_json(self.path / "run.json", run)
        return notes

    @property
    def checkpoint_folder(self) -> Path:
        return self.path / "checkpoints"

    def run(self) -> dict[str, Any]:
        """What run.json says."""
        return read_object(
            self.path / "run.json",
            fields={"overrides": list, "versions": dict},
            remedy="It says what the run is: restore it, or choose another run_dir.",
        )

    def result(self) -> dict[str, Any]:
        """What result.json says.

        Raises:
            FileNotFoundError: the run has neither finished nor failed yet.
        """
        return read_object(
            self.path / "result.json",
            fields={"status": str},
            remedy=_WRITE_AGAIN,
        )

    def write_result(self, status: str, **values: Any) -> None:
        """Writes result.json; `status` is finished, failed or interrupted.

        A failure does not take the place of a result.
        """
        if status != "finished" and self.is_finished():
            return
        write_result(self.path, self.run(), status, **values)

    def last_metrics(self) -> dict[str, float]:
        """The last row of metrics.csv, empty before the first rollout."""
        return last_row(self.path / "metrics.csv")

    def final_metrics(self) -> dict[str, float]:
        """The numbers of the last rollout of a finished run, whatever became of its tables.

        Raises:
            DamagedFile: result.json does not have them.
        """
        metrics = self.result().get("metrics")
        wanted = ("rollout_step", "update_step", "reward/mean")
        if not isinstance(metrics, dict) or not all(
            isinstance(metrics.get(name), int | float) for name in wanted
        ):
            raise DamagedFile(
                f"{self.path / 'result.json'} is damaged: metrics is {str(metrics)[:80]!r}. {_WRITE_AGAIN}"
            )
        return metrics

    def _finished_rollouts(self) -> int | None:
        """Rollouts of the run that came to its end here; None where none did."""
        if not (self.path / "result.json").exists():
            return None
        if self.result()["status"] != "finished":
            return None
        return int(self.final_metrics()["rollout_step"])

    def _rollouts_done(self) -> int:
        finished = self._finished_rollouts()
        if finished is not None:
            return finished
        return max(checkpoints(self.checkpoint_folder), default=0)

    def _require_somewhere_to_go_on(self) -> None:
        if self.checkpoint is not None:
            return
        if self._damaged:
            raise ValueError(
                f"no whole checkpoint of the run is left: {'; '.join(map(str, self._damaged))}. Restore "
                f"one, or move {self.checkpoint_folder} away to begin the run again (its tables are kept)."
            )
        if self.is_finished():
            raise ValueError(
                f"the run in {self.path} is finished and has no checkpoint any more, so it cannot go on to "
                f"more rollouts; leave out {LENGTH_KEY}, or start a new run in another run_dir"
            )
