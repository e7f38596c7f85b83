"""Prints how often each grader agrees with a file of verdicts, and where it does not.

    papo check grader FILE.jsonl [--minimum 84] [--grader combined]

Each line of FILE is an object with `prediction` (a whole response), `answer` (the reference),
`expected` (true or false) and, if wanted, `note`. Exits with 1 when the combined grader agrees
on fewer than `--minimum` lines, and with 2 where there is no file of cases to read. The cases of
docs/graders.md are in tests/golden/grader_cases.jsonl.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from papo.rewards.grader_names import GRADER_NAMES

SHIPPED = "tests/golden/grader_cases.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line of the file."""

    line: int
    prediction: str
    answer: str
    expected: bool
    note: str


def read_cases(path: Path) -> Iterator[Case]:
    """Yields the cases of a JSON-lines file; blank lines are skipped.

    Raises:
        ValueError: it is no text in UTF-8, a line is no JSON object, or a column is missing or of the
            wrong type.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {error}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: an object is needed, got {row!r:.80}")
        for column, kind in (("prediction", str), ("answer", str), ("expected", bool)):
            if not isinstance(row.get(column), kind):
                raise ValueError(
                    f"{path}, line {number}: column {column!r} must be a {kind.__name__}, "
                    f"got {row.get(column)!r:.80}"
                )
        yield Case(
            line=number,
            prediction=row["prediction"],
            answer=row["answer"],
            expected=row["expected"],
            note=str(row.get("note", "")),
        )


def check(cases: list[Case], grader: str, deadline_seconds: float) -> list[Case]:
    """Prints the agreement of one grader and returns the cases it disagrees with."""
    # Here, because they import torch.
    from papo.rewards import MathReward
    from papo.types import Problem, shown

    reward = MathReward(
        grader=grader,
        accuracy_weight=1.0,
        format_weight=0.0,
        deadline_seconds=deadline_seconds,
        num_workers=1,
    )
    problems = [
        Problem(id=str(case.line), question="", answer=case.answer, images=(), source="check")
        for case in cases
    ]
    try:
        rewards = reward(problems, [case.prediction for case in cases])
    finally:
        reward.close()
    verdicts = rewards.correct.tolist()
    wrong = [
        case for case, verdict in zip(cases, verdicts, strict=True) if verdict != case.expected
    ]
    print(f"{grader}: {len(cases) - len(wrong)}/{len(cases)} agree, {rewards.timeouts} timeouts")
    for case in wrong:
        kind = "rejects" if case.expected else "accepts"
        box = case.prediction if len(case.prediction) < 80 else "..." + case.prediction[-77:]
        print(f"  line {case.line}: {kind} {box!r} for {shown(case.answer)!r} ({case.note})")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "file", type=Path, nargs="?", help=f"labelled answers, JSON lines; those shipped: {SHIPPED}"
    )
    parser.add_argument("--grader", choices=GRADER_NAMES, help="only this one (default: all)")
    parser.add_argument(
        "--minimum", type=int, help="how many lines the combined grader must agree on"
    )
    parser.add_argument("--deadline-seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    if arguments.minimum is not None and arguments.grader not in (None, "combined"):
        parser.error("--minimum speaks of the combined grader; leave --grader out")
    try:
        if arguments.file is None:
            raise ValueError("no file of labelled answers was named")
        cases = list(read_cases(arguments.file))
        if not cases:
            raise ValueError(f"{arguments.file} holds no cases")
    except (OSError, ValueError) as error:
        print(f"check_grader: {error}; the shipped cases are in {SHIPPED}", file=sys.stderr)
        return 2
    agreed = {}
    for grader in (arguments.grader,) if arguments.grader else GRADER_NAMES:
        agreed[grader] = len(cases) - len(check(cases, grader, arguments.deadline_seconds))
    if arguments.minimum is not None and agreed["combined"] < arguments.minimum:
        print(
            f"check_grader: combined agrees on {agreed['combined']} lines, "
            f"fewer than the minimum of {arguments.minimum}",
            file=sys.stderr,
        )
        return 1
    return 0
