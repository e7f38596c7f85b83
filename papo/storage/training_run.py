"""Reads the folder of a training run, finished or not; its files may be cut short or damaged.

What cannot be read is left out and said (`TrainingRun.notes`), never guessed. The folder is described
in papo/training/run_folder.py, the columns in docs/metrics.md.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from papo.storage.files import DamagedFile, read_object
from papo.storage.tables import FAULTS, read_readable


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownResponse:
    """One response of rollouts.jsonl.

    Attributes:
        text: what the policy wrote.
        reward, correct: what it earned.
        components: parts of the reward, e.g. accuracy, error_perception.
        tokens: the text of each token; None where the run recorded none.
        perception_kl: nats per token (k3), NaN where it is no number; None without a masked view.
    """

    text: str
    reward: float
    correct: bool
    components: Mapping[str, float]
    tokens: tuple[str, ...] | None
    perception_kl: tuple[float, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownGroup:
    """The responses to one prompt in one rollout, with the pictures the policy saw.

    Attributes:
        rollout_step: of the run.
        problem, prompt, answer: what was asked, and the reference answer.
        images, masked_images: paths as recorded; they may lead anywhere.
        responses: at least one.
    """

    rollout_step: int
    problem: str
    prompt: str
    answer: str
    images: tuple[str, ...]
    masked_images: tuple[str, ...]
    responses: tuple[ShownResponse, ...]

    @property
    def mean_reward(self) -> float:
        return sum(response.reward for response in self.responses) / len(self.responses)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenGroup:
    """A group, and why it was chosen: "first", "last", "best", "worst", or several of them."""

    reasons: tuple[str, ...]
    group: ShownGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """What is in a run folder.

    Attributes:
        folder: where it is.
        facts: run.json: started, overrides, seed, git_commit, versions.
        config_text: the resolved configuration as YAML; empty where it is missing.
        planned_rollouts: training.num_rollouts; None where it is unknown.
        result: result.json; None before the end.
        metrics, timings: column -> a value per finished rollout, NaN where a cell is no number.
        groups: the chosen responses.
        faults: what the run found that cannot do what its weight says, a sentence each.
        notes: what could not be read.
    """

    folder: Path
    facts: Mapping[str, Any]
    config_text: str
    planned_rollouts: int | None
    result: Mapping[str, Any] | None
    metrics: Mapping[str, tuple[float, ...]]
    timings: Mapping[str, tuple[float, ...]]
    groups: tuple[ChosenGroup, ...]
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def read_training_run(folder: Path, *, groups_of_each_kind: int) -> TrainingRun:
    """Reads a run folder.

    Args:
        folder: of a run of train.py.
        groups_of_each_kind: how many of the first, last, best and worst groups are kept.

    Raises:
        ValueError: the folder does not exist, holds no training run, or its run.json is damaged.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; name the run_dir of a training run")
    notes: list[str] = []
    if not (folder / "run.json").is_file():
        raise ValueError(
            f"{folder} holds no training run: there is no run.json. Name the folder that train.py printed "
            "at its end (its run_dir)."
        )
    facts = read_object(
        folder / "run.json", remedy="It says what the run is: restore it, or name another folder."
    )
    config = _read_object(folder / "config.json", notes) or {}
    training = config.get("training")
    planned = training.get("num_rollouts") if isinstance(training, dict) else None
    return TrainingRun(
        folder=folder,
        facts=facts,
        config_text=_read_text(folder / "config.yaml"),
        planned_rollouts=planned if isinstance(planned, int) else None,
        result=_read_object(folder / "result.json", notes),
        metrics=read_readable(folder / "metrics.csv", notes),
        timings=read_readable(folder / "timings.csv", notes),
        groups=choose_groups(_read_groups(folder / "rollouts.jsonl", notes), groups_of_each_kind),
        faults=read_faults(folder / FAULTS, notes),
        notes=tuple(notes),
    )


def choose_groups(groups: Iterator[ShownGroup], count: int) -> tuple[ChosenGroup, ...]:
    """Returns the first, last, best and worst `count` groups, each once, in the order of the run.

    Best and worst are by mean reward; of equals the later ones.
    """
    first: list[tuple[int, ShownGroup]] = []
    last: list[tuple[int, ShownGroup]] = []
    best: list[tuple[int, ShownGroup]] = []
    worst: list[tuple[int, ShownGroup]] = []
    for entry in enumerate(groups):
        if len(first) < count:
            first.append(entry)
        last = [*last, entry][-count:]
        best = sorted([*best, entry], key=lambda e: (-e[1].mean_reward, -e[0]))[:count]
        worst = sorted([*worst, entry], key=lambda e: (e[1].mean_reward, -e[0]))[:count]
    kinds = {"first": first, "last": last, "best": best, "worst": worst}
    chosen = {index: group for entries in kinds.values() for index, group in entries}
    return tuple(
        ChosenGroup(
            group=chosen[index],
            reasons=tuple(kind for kind, entries in kinds.items() if index in dict(entries)),
        )
        for index in sorted(chosen)
    )


def read_faults(path: Path, notes: list[str]) -> tuple[str, ...]:
    """Returns what a run found to do nothing, with the key that sets it; damaged lines are counted in the notes."""
    found, damaged = [], 0
    for line in _read_text(path).splitlines():
        try:
            fault = json.loads(line)
            found.append(f"rollout {int(fault['rollout_step'])}: {fault['key']}: {fault['says']}.")
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged += 1
    if damaged:
        notes.append(f"Damaged lines left out of {path.name}: {damaged}.")
    return tuple(found)


def _read_text(path: Path) -> str:
    return path.read_text("utf-8", errors="replace") if path.is_file() else ""


def _read_object(path: Path, notes: list[str]) -> dict[str, Any] | None:
    """A JSON object, or None; a file that holds none is noted."""
    if not path.is_file():
        return None
    try:
        return read_object(path, remedy="It was left out.")
    except DamagedFile as error:
        notes.append(str(error))
        return None


def _read_groups(path: Path, notes: list[str]) -> Iterator[ShownGroup]:
    """Groups of rollouts.jsonl one after another; damaged lines are counted in the notes."""
    if not path.is_file():
        return
    damaged = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        parsed = (_parse(line) for line in file if line.strip())
        for shared, rows in groupby(parsed, key=lambda row: None if row is None else row[0]):
            if shared is None:
                damaged += sum(1 for _ in rows)
            else:
                responses = tuple(row[1] for row in rows if row is not None)
                yield ShownGroup(**dict(shared), responses=responses)
    if damaged:
        notes.append(f"Damaged lines left out of {path.name}: {damaged}.")


def _parse(line: str) -> tuple[tuple[tuple[str, Any], ...], ShownResponse] | None:
    """What a line says of its group, and the response; None where it is no such record."""
    try:
        row = json.loads(line)
        group = (
            ("rollout_step", int(row["rollout_step"])),
            ("problem", str(row["problem"])),
            ("prompt", str(row["prompt"])),
            ("answer", str(row["answer"])),
            ("images", tuple(str(path) for path in row["images"])),
            ("masked_images", tuple(str(path) for path in row["masked_images"])),
        )
        tokens, token_kl = row.get("tokens"), row.get("perception_kl")
        response = ShownResponse(
            text=str(row["response"]),
            reward=_finite(row["reward"]),
            correct=bool(row["correct"]),
            components={
                str(name): float(value) for name, value in row.get("components", {}).items()
            },
            tokens=None if tokens is None else tuple(str(token) for token in tokens),
            perception_kl=None if token_kl is None else _numbers(token_kl),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return group, response


def _finite(value: Any) -> float:
    if not math.isfinite(number := float(value)):
        raise ValueError("a reward is finite")
    return number


def _numbers(values: Sequence[Any]) -> tuple[float, ...]:
    return tuple(math.nan if value is None else float(value) for value in values)
