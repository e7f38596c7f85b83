"""One analysis: evaluated runs are read, wrong answers sampled, labelled and counted. docs/error_analysis.md explains the files."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from rich.text import Text

from papo.analysis.errors.analysis import label_sample, summarize
from papo.analysis.errors.folder import AnalysisFolder
from papo.analysis.errors.labellers.geometry.labels import GeometryLabels
from papo.analysis.errors.labellers.human import read_human_labels
from papo.analysis.errors.labellers.lab import LabLabels
from papo.analysis.errors.misreading_report import fact_table, misreading_sentences, mistake_table
from papo.analysis.errors.misreadings import read_readings
from papo.analysis.errors.sampling import draw_sample
from papo.analysis.errors.summary import ErrorSummary
from papo.analysis.errors.tables import (
    headline_sentences,
    judge_sentences,
    labeller_notes,
    per_cent,
    share_table,
    transition_sentences,
    transition_table,
)
from papo.commands import building, front_door, overriding
from papo.commands.command_line import variables, words_of
from papo.commands.constructors import plain, read_config
from papo.commands.policy_source import run_of, trained_checkpoint
from papo.storage.evaluated_run import read_evaluated_runs
from papo.storage.files import locked
from papo.storage.provenance import flatten_settings

KNOWN_KEYS = (
    *("runs", "view", "num_cases", "seed", "judge", "human_labels", "min_validated"),
    *("require_finished", "report_cases", "label_picture_side", "evaluate", "wandb", "run_dir"),
)

SHOWN_MISTAKES = 8
"""Kinds of misreading in the printed table; the report has all."""

console = Console(width=None if sys.stdout.isatty() else 140)


def analyze(config: DictConfig) -> None:
    """One analysis."""
    check_settings(config)
    run_dir = front_door.run_dir()
    OmegaConf.update(config, "run_dir", str(run_dir))
    folder = AnalysisFolder(
        run_dir,
        config=plain(config),
        config_text=OmegaConf.to_yaml(config, resolve=True),
        overrides=list(HydraConfig.get().overrides.task),
    )
    # Before a run is evaluated or a judge is asked.
    folder.require_free()
    given = [Path(run).expanduser() for run in config.runs]
    runs = read_evaluated_runs(
        [evaluate_first(path, config) if is_training_run(path) else path for path in given],
        named_by=given,
        view=config.view,
        require_finished=config.require_finished,
    )
    sample = draw_sample(runs, num_cases=config.num_cases, seed=config.seed)
    # Labels of another analysis and a missing key are noticed before anything is written.
    people = [
        label
        for path in config.human_labels
        for label in read_human_labels(Path(path).expanduser(), sample)
    ]
    judges = [building.instantiate(config.judge)] if config.judge else []
    with locked(run_dir):
        folder.open()
        try:
            folder.write_cases(sample, picture_side=config.label_picture_side)
            readings = [found for run in runs if (found := read_readings(run))]
            labelled = label_sample(sample, [LabLabels(), GeometryLabels(), *judges], people)
            summary = summarize(
                labelled,
                readings=readings,
                judge=[judge.facts() for judge in judges],
                seed=config.seed,
                min_validated=config.min_validated,
            )
            folder.write_results(labelled, readings, summary, report_cases=config.report_cases)
            if config.wandb.mode != "disabled":
                log_to_wandb(config, folder, summary)
            folder.write_result("finished", analysis=sample.analysis)
        except BaseException as error:
            status = "failed" if isinstance(error, Exception) else "interrupted"
            # On a full disk the reason of the failure matters more than its record.
            with suppress(OSError):
                folder.write_result(status, error=f"{type(error).__name__}: {error}")
            raise
    show(summary, folder)


def evaluate_first(given: Path, config: DictConfig) -> Path:
    """Returns the evaluation of a training run's newest checkpoint, or of RUN/best; evaluate.py makes it if need be.

    It is kept in RUN/evaluations/ under the checkpoint and the settings, and found there the next time.

    Raises:
        ValueError: it is not known on which problems to look, or the evaluation failed.
        FileNotFoundError: the run holds no checkpoint.
    """
    run = run_of(given)
    assert run is not None, "is_training_run has said so"
    settings = evaluation_overrides(run, config)
    checkpoint = trained_checkpoint(given)
    # On how many processes it was evaluated changes nothing of it.
    named = [one for one in settings if one.partition("=")[0] not in ("devices", "num_nodes")]
    key = hashlib.sha256("\n".join(named).encode()).hexdigest()[:8]
    folder = run / "evaluations" / f"{checkpoint.stem}_{key}"
    paths = {"checkpoint": checkpoint, "run_dir": folder}
    say(f"Evaluating {given} first, into {folder}")
    sys.stdout.flush()
    ended = subprocess.run(
        [
            *(sys.executable, *words_of("evaluate")),
            *(overriding.quoted(name, value) for name, value in paths.items()),
            "resume=true",
            *settings,
        ],
        env={**os.environ, **variables()},
    )
    if ended.returncode:
        raise ValueError(
            f"the evaluation of {given} failed, see above. Its settings are evaluate.KEY=VALUE here; or "
            "evaluate yourself with evaluate.py and give that folder in runs="
        )
    return folder


def evaluation_overrides(run: Path, config: DictConfig) -> list[str]:
    """What evaluate.py is told of a training run; a run trained on the lab is evaluated on the lab.

    Raises:
        ValueError: the run was trained on other problems, and no benchmark is named.
    """
    given = flatten_settings(plain(config.evaluate))
    settings = {key: value for key, value in given if value is not None}
    if "benchmark" not in settings:
        # Only looked at: evaluate.py constructs what it reads of the run itself.
        trained_on = read_config(run / "config.yaml").get("data")
        if not (
            isinstance(trained_on, dict) and str(trained_on.get("_target_")).startswith("papo.lab.")
        ):
            raise ValueError(
                f"{run} is a training run, which is evaluated first: name the problems, e.g. "
                "evaluate.benchmark=geo3k (evaluate.data.path=FOLDER where they are not on the hub)"
            )
        shape = trained_on.get("shape", "rectangle")
        settings["benchmark"] = "lab" if shape == "rectangle" else f"lab_{shape}"
    return [overriding.quoted(name, value) for name, value in settings.items()]


def is_training_run(given: Path) -> bool:
    """Whether train.py wrote the folder, or that above RUN/best."""
    run = run_of(given)
    return run is not None and (run / "config.yaml").is_file()


def check_settings(config: DictConfig) -> None:
    """Raises ValueError for a setting that no analysis can have, naming its key."""
    building.check_known_keys(config, KNOWN_KEYS)
    if OmegaConf.is_missing(config, "runs"):
        raise ValueError(
            "an analysis reads training runs or folders that evaluate.py wrote; set runs=[FOLDER] or "
            "runs=[BEFORE,AFTER]"
        )
    if config.judge and OmegaConf.is_missing(config.judge, "model"):
        raise ValueError("the judge has no name; set judge.model= as its server calls it")
    building.check_wandb(config.wandb.mode, key="wandb.mode")
    for key in ("runs", "human_labels"):
        if not isinstance(config[key], ListConfig):
            raise ValueError(f"{key} is a list of paths; got {config[key]!r}. Write {key}=[A,B].")
    for key in ("min_validated", "label_picture_side"):
        if config[key] < 1:
            raise ValueError(f"{key} is at least 1; got {config[key]}")
    if config.seed < 0 or config.report_cases < 0:
        raise ValueError(
            f"seed and report_cases are at least 0; got seed={config.seed}, "
            f"report_cases={config.report_cases}"
        )


def log_to_wandb(config: DictConfig, folder: AnalysisFolder, summary: ErrorSummary) -> None:
    """Logs the share tables and the plots as one Weights & Biases run in the analysis folder."""
    import wandb

    with wandb.init(
        project=config.wandb.project,
        dir=str(folder.path),
        mode=config.wandb.mode,
        job_type="error_analysis",
        config=plain(config),
        settings=wandb.Settings(silent=True),
    ) as run:
        for name in summary.labellers:
            headings, rows = share_table(summary, name)
            run.log({f"errors/{name}": wandb.Table(columns=list(headings), data=rows)})
        for picture in sorted(folder.path.glob("*.png")):
            run.log({f"plots/{picture.stem}": wandb.Image(str(picture))})


def show(summary: ErrorSummary, folder: AnalysisFolder) -> None:
    """Prints what was found and where everything is."""
    for name, labeller in summary.labellers.items():
        print_table(f"Wrong answers, labelled by {name}", *share_table(summary, name))
        for note in labeller_notes(labeller):
            say(f"  {note.replace('**', '')}")
    for one in summary.transitions:
        title = f"{one.before} to {one.after}, labelled by {one.labeller}"
        print_table(f"Response slots: {title}", *transition_table(one))
        for sentence in transition_sentences(one):
            say(f"  {sentence}")
    for found in summary.readings:
        if found.misread:
            print_table(f"Misread by {found.run}", *mistake_table(found, most=SHOWN_MISTAKES))
        for sentence in misreading_sentences(found):
            say(f"  {sentence}")
    if summary.misread_facts:
        print_table("Facts of the diagrams that were misread", *fact_table(summary))
    for facts in summary.judge:
        for sentence in judge_sentences(facts):
            say(sentence)
    for sentence in headline_sentences(summary):
        say(sentence)
    say(
        f"The paper: {per_cent(summary.published.perception)} of {summary.published.cases} wrong answers "
        "misread the picture (another model and data)."
    )
    say(
        f"Look at {folder.path / 'report.html'}; label by hand with {folder.path / 'label_page.html'}"
    )


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; the first column names the rows."""
    table = Table(title=Text(title))
    table.add_column(Text(headings[0]))
    for heading in headings[1:]:
        table.add_column(Text(heading), justify="right")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def say(text: str) -> None:
    """Prints a sentence as it is: names of runs may look like markup."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)
