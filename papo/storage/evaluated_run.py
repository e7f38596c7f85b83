"""Reads the folder of an evaluation: graded responses, and what is known of each problem."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from papo.storage.files import read_object, writable
from papo.types import ResponseRecord

ItemKey = tuple[str, str]
"""(benchmark, problem id)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownProblem:
    """What problems.jsonl says of one problem.

    Attributes:
        question: its text.
        images: files of its pictures, inside the evaluation's folder.
        truth: what is known of the picture, or None.
        system_prompt: what was said before the question; None leaves it to the chat template.
    """

    question: str
    images: tuple[Path, ...]
    truth: Mapping[str, Any] | None
    system_prompt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedRun:
    """The responses of one evaluation in one view.

    Attributes:
        name: how reports call it: the folder's name, and more of its path where two would agree.
        folder: where it was read.
        responses: per item its responses, in the order of their index.
        problems: per item what is known of it.
    """

    name: str
    folder: Path
    responses: Mapping[ItemKey, tuple[ResponseRecord, ...]]
    problems: Mapping[ItemKey, KnownProblem]

    @property
    def num_responses(self) -> int:
        """Responses to each problem."""
        return len(next(iter(self.responses.values())))


def read_evaluated_runs(
    folders: list[Path],
    *,
    named_by: list[Path] | None = None,
    view: str,
    require_finished: bool,
) -> tuple[EvaluatedRun, ...]:
    """Reads evaluation folders, the first being what the others are compared with.

    Args:
        folders: each with responses.jsonl and problems.jsonl.
        named_by: what the runs are called after, e.g. the training runs; the folders themselves if None.
        view: which responses to read, e.g. "image".
        require_finished: refuse a folder whose result.json does not say finished. Otherwise the
            problems that have all their responses are read.

    Raises:
        ValueError: no folder, one twice, one that is empty, half-finished or damaged, or folders of
            different items; the message names what and the way out.
    """
    if not folders:
        raise ValueError(
            "an analysis reads at least one evaluation; set runs=[FOLDER] or runs=[A,B]"
        )
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"every run is named once; got runs={[str(f) for f in folders]}")
    names = _short_names(named_by or folders)
    runs = tuple(
        _read_run(folder, name, view=view, require_finished=require_finished)
        for folder, name in zip(folders, names, strict=True)
    )
    for run in runs[1:]:
        _require_same_items(runs[0], run)
    return runs


def _read_run(folder: Path, name: str, *, view: str, require_finished: bool) -> EvaluatedRun:
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; runs= takes folders that evaluate.py wrote")
    if not (folder / "responses.jsonl").is_file():
        what = "is a training run" if (folder / "rollouts.jsonl").exists() else "holds no responses"
        raise ValueError(
            f"{folder} {what}; an analysis reads evaluations. Run python evaluate.py "
            "checkpoint=RUN_DIR benchmark=NAME first, and give its folder in runs="
        )
    if require_finished and (status := _status(folder)) != "finished":
        raise ValueError(
            f"the evaluation in {folder} is {status}, so its wrong answers are not a fair sample. "
            "Finish it (evaluate.py with resume=true), or read what there is: require_finished=false"
        )
    by_item: dict[ItemKey, dict[int, ResponseRecord]] = {}
    views: set[str] = set()
    for number, line in enumerate(_lines(folder / "responses.jsonl"), start=1):
        try:
            record = _checked(ResponseRecord.from_line(line))
        except ValueError as error:
            raise ValueError(f"{folder / 'responses.jsonl'}, line {number}: {error}") from error
        views.add(record.view)
        if record.view != view:
            continue
        of_item = by_item.setdefault((record.benchmark, record.problem_id), {})
        if record.response_index in of_item:
            raise ValueError(
                f"{folder / 'responses.jsonl'}, line {number} repeats response "
                f"{record.response_index} to {record.problem_id!r} of {record.benchmark}"
            )
        of_item[record.response_index] = record
    if not by_item:
        raise ValueError(
            f"{folder} holds no response in the view {view!r}; it has "
            f"{', '.join(sorted(views)) or 'none at all'}. Set view=, or evaluate again."
        )
    responses = _whole_items(by_item, folder, require_finished=require_finished)
    return EvaluatedRun(
        name=name, folder=folder, responses=responses, problems=_read_problems(folder, responses)
    )


def _checked(record: ResponseRecord) -> ResponseRecord:
    """The record with text that can be written; raises ValueError where a value is of another type."""
    texts = ("benchmark", "problem_id", "view", "response", "reference")
    wanted = {
        **dict.fromkeys(texts, str),
        "response_index": int,
        "answer": str | None,
        "correct": bool,
        "verdicts": dict,
    }
    for name, kind in wanted.items():
        if not isinstance(value := getattr(record, name), kind):
            raise ValueError(f"{name} is of another type; got {str(value)[:80]!r}")
    return replace(
        record,
        benchmark=writable(record.benchmark),
        problem_id=writable(record.problem_id),
        response=writable(record.response),
        reference=writable(record.reference),
        answer=None if record.answer is None else writable(record.answer),
        verdicts={str(grader): str(verdict) for grader, verdict in record.verdicts.items()},
    )


def _whole_items(
    by_item: Mapping[ItemKey, Mapping[int, ResponseRecord]], folder: Path, *, require_finished: bool
) -> dict[ItemKey, tuple[ResponseRecord, ...]]:
    """The items with all their responses; the longest row says how many that is."""
    num_responses = max(len(responses) for responses in by_item.values())
    whole = {
        key: tuple(responses[index] for index in range(num_responses))
        for key, responses in by_item.items()
        if responses.keys() == set(range(num_responses))
    }
    if len(whole) < len(by_item) and require_finished:
        missing = next(key for key in by_item if key not in whole)
        raise ValueError(
            f"{folder} lacks responses: {missing[1]!r} of {missing[0]} has "
            f"{len(by_item[missing])} of {num_responses}. Evaluate again."
        )
    if not whole:
        raise ValueError(f"{folder} holds no problem with all its responses; evaluate again")
    return whole


def _read_problems(folder: Path, wanted: Mapping[ItemKey, Any]) -> dict[ItemKey, KnownProblem]:
    path = folder / "problems.jsonl"
    if not path.is_file():
        raise ValueError(
            f"{folder} has no problems.jsonl, which says what was asked; evaluate again"
        )
    problems: dict[ItemKey, KnownProblem] = {}
    for number, line in enumerate(_lines(path), start=1):
        try:
            row = json.loads(line)
            if not isinstance(row.get("truth"), dict | None):
                raise ValueError("truth is an object or null")
            key = (writable(str(row["benchmark"])), writable(str(row["problem_id"])))
            problems[key] = KnownProblem(
                question=writable(str(row["question"])),
                images=tuple(_inside(folder, str(image)) for image in row["images"]),
                truth=row.get("truth"),
                system_prompt=None if (said := row.get("system_prompt")) is None else str(said),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}, line {number} describes no problem: {error}") from error
    if missing := [key for key in wanted if key not in problems]:
        raise ValueError(
            f"{path} does not describe {missing[0][1]!r} of {missing[0][0]} and "
            f"{len(missing) - 1} more; evaluate again"
        )
    return {key: problems[key] for key in wanted}


def _inside(folder: Path, written: str) -> Path:
    # A report copies these pictures, and a folder from elsewhere must not name files of this machine.
    path = (folder / written).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"the picture {written!r} lies outside the evaluation's folder")
    return path


def _lines(path: Path) -> list[str]:
    """Whole lines; a last one that a crash cut short is left out."""
    try:
        *lines, _ = path.read_text("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: it is not text ({error}); evaluate again") from error
    return [line for line in lines if line.strip()]


def _status(folder: Path) -> str:
    file = folder / "result.json"
    if not file.exists():
        return "unfinished"
    remedy = "Delete it, and finish the evaluation (evaluate.py with resume=true)."
    return str(read_object(file, fields={"status": str}, remedy=remedy)["status"])


def _require_same_items(first: EvaluatedRun, other: EvaluatedRun) -> None:
    hint = "Runs are compared item by item: evaluate both with the same benchmark= and rollout=."
    if first.responses.keys() != other.responses.keys():
        only = sorted(first.responses.keys() ^ other.responses.keys())
        raise ValueError(
            f"{first.name} and {other.name} answered different items: {len(only)} are in one alone, "
            f"first {only[0][1]!r} of {only[0][0]}. {hint}"
        )
    if first.num_responses != other.num_responses:
        raise ValueError(
            f"{first.name} has {first.num_responses} responses to a problem, {other.name} has "
            f"{other.num_responses}. {hint}"
        )
    for key, responses in first.responses.items():
        if responses[0].reference != other.responses[key][0].reference:
            raise ValueError(
                f"{first.name} and {other.name} have different references for {key[1]!r} of "
                f"{key[0]}, so it is not the same problem. {hint}"
            )


def _short_names(folders: list[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]
