"""Evaluation folders as evaluate.py writes them, made of responses of known error type."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from papo.types import ResponseRecord

# The scene of every lab record: a = 3, b = 4, area.
LAB_TRUTH = {"operation": "area", "a": 3, "b": 4, "result": 12}
LAB_RESPONSES = {
    "correct": "<think> a = 3 , b = 4 , a * b = 12 </think> \\boxed{ 12 }",
    "correct_but_misread": "<think> a = 2 , b = 6 , a * b = 12 </think> \\boxed{ 12 }",
    "perception": "<think> a = 3 , b = 9 , a * b = 27 </think> \\boxed{ 27 }",
    "reasoning": "<think> a = 3 , b = 4 , a + b = 7 </think> \\boxed{ 7 }",
    "calculation": "<think> a = 3 , b = 4 , a * b = 15 </think> \\boxed{ 15 }",
    "inconsistent": "<think> a = 3 , b = 4 , a * b = 12 </think> \\boxed{ 9 }",
    "format": "a = 3 , b = 4",
}


def lab_record(
    index: int,
    kind: str,
    *,
    benchmark: str = "lab",
    response_index: int = 0,
    view: str = "image",
    reference: str = "12",
    verdict: str | None = None,
) -> ResponseRecord:
    """A response of the lab that is wrong in a known way."""
    text = LAB_RESPONSES[kind]
    return record(
        index,
        text,
        benchmark=benchmark,
        response_index=response_index,
        view=view,
        reference=reference,
        answer=text.split("{")[1].split("}")[0].strip() if "{" in text else None,
        correct=kind.startswith("correct"),
        verdicts={"lab": verdict or kind},
    )


def record(index: int, response: str, **values: Any) -> ResponseRecord:
    """A graded response; wrong unless said otherwise."""
    defaults = {
        "benchmark": "geo3k",
        "view": "image",
        "response_index": 0,
        "reference": "12",
        "answer": "7",
        "correct": False,
        "verdicts": {"mathruler": "wrong"},
        "stop_reason": "end",
    }
    return ResponseRecord(
        **{
            **defaults,
            "problem_id": f"p{index}",
            "seed": index,
            "response": response,
            "num_tokens": len(response.split()),
            **values,
        }
    )


def write_evaluation(
    folder: Path,
    records: Sequence[ResponseRecord],
    *,
    truth: Any = LAB_TRUTH,
    question: str = "<image> What is the area of the rectangle?",
    status: str = "finished",
) -> Path:
    """Writes an evaluation folder; all problems share a picture, a question and a truth."""
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (40, 30), "navy").save(folder / "images" / "one.png")
    (folder / "responses.jsonl").write_text("".join(record.to_line() for record in records))
    keys = dict.fromkeys(
        (record.benchmark, record.problem_id, record.reference) for record in records
    )
    (folder / "problems.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "benchmark": benchmark,
                    "problem_id": problem_id,
                    "question": question,
                    "answer": reference,
                    "images": ["images/one.png"],
                    "truth": truth,
                }
            )
            + "\n"
            for benchmark, problem_id, reference in keys
        )
    )
    (folder / "result.json").write_text(json.dumps({"status": status}))
    (folder / "run.json").write_text(json.dumps({"seed": 0, "git_commit": None}))
    return folder
