"""What `--help` says of train, evaluate and analyze: a sentence, the overrides people use, and the groups it reads.

The groups and their choices are those of conf/, and only those that the command composes.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from papo.commands.constructors import CONF


@dataclass(frozen=True, slots=True, kw_only=True)
class Help:
    """What is said of one command.

    Attributes:
        sentence: what it does.
        overrides: those people use, with what each is for.
        added: groups of conf/ that it reads and that a command adds with +, or overrides.
        pages: of docs/, with what is there.
    """

    sentence: str
    overrides: dict[str, str]
    added: tuple[str, ...] = ()
    pages: dict[str, str]


HELPS = {
    "train": Help(
        sentence="Trains a policy with PAPO: without arguments a 0.35 M-parameter model on drawn scenes, on a CPU.",
        overrides={
            "+experiment=papo_geo3k": "a published run, a file of conf/experiment",
            "objective=grpo": "another loss",
            "objective.gamma=0.05": "a weight of it",
            "masking.ratio=0.8": "how much of the picture the masked view hides",
            "model.path=FOLDER": "weights of your own, in Hugging Face's format",
            "data=local data.path=FOLDER": "problems of your own",
            "training.num_rollouts=100": "how long",
            "seed=2": "another draw of everything random",
            "logger=wandb": "Weights & Biases",
            "run_dir=FOLDER resume=true": "a named folder, and going on with the run in it",
        },
        added=("experiment", "sweep", "debug", "model/lora", "hydra/launcher"),
        pages={
            "docs/data.md": "problems of your own",
            "docs/runs.md": "folders, going on, longer runs",
            "docs/metrics.md": "every column of metrics.csv",
            "docs/scale.md": "several GPUs",
        },
    ),
    "evaluate": Help(
        sentence="Samples a policy's responses to benchmarks, grades them, and ends with a table.",
        overrides={
            "checkpoint=RUN_DIR": "a training run (its newest checkpoint), a checkpoint of it, a Hugging Face folder",
            "benchmark=all": "the nine benchmarks of the paper's Table 1",
            "benchmark=local data.path=FOLDER": "problems of your own",
            "model=qwen2_5_vl_3b": "a model that was not trained here",
            "rollout=greedy": "one response without sampling",
            "benchmark.limit=100": "the first problems of each",
            "views=vision": "what the picture is worth",
            "probe=perception": "which words depend on it",
            "seed=1": "another draw",
            "run_dir=FOLDER resume=true": "a named folder, and going on with the evaluation in it",
        },
        pages={
            "docs/evaluation.md": "protocol, files, published rows",
            "docs/vision_dependency.md": "views and the probe",
            "docs/graders.md": "when an answer is right",
        },
    ),
    "analyze": Help(
        sentence="Says what wrong answers got wrong, of one run or of two: misread, misreasoned, miscalculated.",
        overrides={
            "runs=[RUN]": "a training run, evaluated first, or a folder of evaluate",
            "runs=[BEFORE,AFTER]": "what changed between two",
            "evaluate.benchmark=geo3k": "on which problems a training run is evaluated",
            "evaluate.data.path=FOLDER": "where they are",
            "num_cases=100": "how many wrong answers are sampled",
            "judge=openai judge.model=NAME": "a language model labels too",
            "human_labels=[FILE]": "labels of a person, from the label page",
            "report_cases=100": "how many the page shows",
            "view=blank": "responses that saw no picture",
            "run_dir=FOLDER": "where the report goes",
        },
        pages={"docs/error_analysis.md": "the procedure, and what each labeller cannot see"},
    ),
}

# What only other files of conf/ choose, and what a command adds.
_INNER = {"aliases", "base", "common", "lora", "parts"}


def help_of(name: str) -> str:
    """Returns what --help prints for a command that composes conf/NAME.yaml."""
    one = HELPS[name]
    width = max(map(len, one.overrides))
    groups = list(groups_of(name))
    lines = [
        one.sentence,
        "",
        f"Usage: papo {name} [OVERRIDE ...]        in a clone: python {name}.py [OVERRIDE ...]",
        "",
        "Often used:",
        *(f"  {override:{width}}  {meant}" for override, meant in one.overrides.items()),
        "",
        "Groups, GROUP=CHOICE (the first is the one without an override; a + is part of the word):",
    ]
    for group, choices in groups:
        text = f"  {group:18} {', '.join(choices)}"
        lines += textwrap.wrap(text, 110, subsequent_indent=" " * 21, break_on_hyphens=False)
    lines += [
        "",
        "  --cfg job    prints the whole configuration that a command composes; every key in it is KEY=VALUE",
        "  -m           every combination of KEY=A,B, each in a folder of its own",
        "  --hydra-help completion of the shell, and what else Hydra has",
        "",
        "Pages of the repository:",
        *(f"  {page:28} {about}" for page, about in one.pages.items()),
    ]
    return "\n".join(lines)


def groups_of(name: str) -> Iterator[tuple[str, list[str]]]:
    """Yields the groups that a command reads, as they are written, with their choices; the default is first."""
    defaults = yaml.safe_load((CONF / f"{name}.yaml").read_text("utf-8"))["defaults"]
    chosen = {
        group: choice
        for entry in defaults
        if isinstance(entry, dict)
        for group, choice in entry.items()
        if not group.startswith("override ")
    }
    for group, default in chosen.items():
        yield group, [default, *(one for one in choices_of(CONF / group) if one != default)]
        for inner in sorted(path for path in (CONF / group).iterdir() if path.is_dir()):
            if inner.name not in _INNER:
                yield f"{group}/{inner.name}", choices_of(inner)
    for group in HELPS[name].added:
        yield group if group.startswith("hydra/") else f"+{group}", choices_of(CONF / group)


def choices_of(folder: Path) -> list[str]:
    """The files of a group, without `.yaml`."""
    return sorted(path.stem for path in folder.glob("*.yaml"))
