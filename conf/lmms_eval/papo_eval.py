"""The nine sets of PAPO_eval as lmms-eval asks for them: this project's data, prompt and graders.

lmms-eval loads this file once for every function a task names. Where the data is, and at which
commit, is said by the environment: PAPO_EVAL_PATH=FOLDER, or PAPO_EVAL_REVISION=COMMIT of the hub.
"""

import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset
from PIL.Image import Image

from papo.data import PapoEvalProblems
from papo.rewards import AnswerGrader
from papo.types import IMAGE_MARKER, Problem

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmark"

# lmms-eval may ask for results in several threads; the grading processes answer one at a time.
_grading = threading.Lock()


def documents(split: Dataset) -> Dataset:
    """Returns one document per problem of the set that the split is named after; no pictures yet."""
    key = str(split.split)
    problems = _problems(key)
    return Dataset.from_list(
        [
            {
                "key": key,
                "row": row,
                "id": problem.id,
                "question": problem.question,
                "answer": problem.answer,
            }
            for row, problem in enumerate(problems)
        ]
    )


def pictures(document: dict[str, Any]) -> list[Image]:
    """Returns the pictures of a document, in the order of its markers."""
    return list(_problems(document["key"])[document["row"]].images)


def prompt(document: dict[str, Any]) -> str:
    """Returns the question with this project's prompt, for models that put all pictures first."""
    return str(document["question"]).replace(IMAGE_MARKER, "")


def messages(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns one turn of the user, each picture where its marker stands, for chat models."""
    texts = document["question"].split(IMAGE_MARKER)
    content: list[dict[str, Any]] = [{"type": "text", "text": texts[0]}] if texts[0] else []
    for picture, text in zip(pictures(document), texts[1:], strict=True):
        content.append({"type": "image", "url": picture})
        if text:
            content.append({"type": "text", "text": text})
    return [{"role": "user", "content": content}]


def accuracy(document: dict[str, Any], responses: list[str]) -> dict[str, float]:
    """Returns the share of right responses, by the configured grader and by each one."""
    problem = Problem(
        id=document["id"],
        question=document["question"],
        answer=document["answer"],
        images=(),
        source=document["key"],
    )
    with _grading:
        graded = _grader()([problem] * len(responses), responses)
    names = graded[0].verdicts
    return {
        "accuracy": sum(one.correct for one in graded) / len(graded),
        **{
            f"accuracy_{name}": sum(one.verdicts[name] == "correct" for one in graded) / len(graded)
            for name in names
        },
    }


@cache
def _problems(key: str) -> PapoEvalProblems:
    common, base = _read("base/common"), _read("base/papo_eval")
    return PapoEvalProblems(
        **_read(key)["sets"][key]["problems"],
        hub_id=base["problems"]["hub_id"],
        path=os.environ.get("PAPO_EVAL_PATH"),
        revision=os.environ.get("PAPO_EVAL_REVISION"),
        prompt_suffix=common["prompt_suffix"],
        limit=None,
        max_archive_gb=common["max_archive_gb"],
    )


@cache
def _grader() -> AnswerGrader:
    common = _read("base/common")
    return AnswerGrader(
        **{name: common[name] for name in ("grader", "deadline_seconds", "num_workers")}
    )


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((BENCHMARKS / f"{name}.yaml").read_text("utf-8"))
    return content
