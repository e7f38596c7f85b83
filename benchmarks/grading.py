r"""Gradings per second of the three graders with two workers, and what hostile responses cost.

The answers are real references (tests/golden/reference_answers.jsonl): given verbatim, in another spelling,
and another problem's. Seconds are those of the wall clock, unlike everywhere else here: a rollout waits for
grading processes. Ratios are within one round. With --other FOLDER the package `papo` of another checkout
is measured beside this one, in processes of its own, turn by turn.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import OUTPUT, REPOSITORY, environment, ratios, spread, take_turns
from benchmarks.report import Row, repetition_count, results, row_of, table, write

REFERENCES = REPOSITORY / "tests" / "golden" / "reference_answers.jsonl"
WORKERS = 2
DEADLINE_SECONDS = 5.0  # as in conf/reward/math.yaml
GRADERS = ("mathruler", "math_verify", "combined")
SHARES_HOSTILE = (0.0, 0.02, 0.1)
# The slow grader is asked about every tenth answer.
SLOW = {"math_verify": 10}
# Found by fuzzing; the first runs until the deadline in math-verify, and none in the others.
HOSTILE = (
    "(x+y)^{9999}", r"\frac{1}{" * 28 + "2" + "}" * 28, "-" * 900 + "1", "9**9**9**9", "(" * 400 + "1" + ")" * 400,
    r"\binom{1000000000}{500000000}", r"\sqrt{" * 28 + "2" + "}" * 28, "99999999!", r"\int_0^{99999} x^x dx",
)  # fmt: skip


def answers(count: int) -> dict[str, list[tuple[str, str]]]:
    """Pairs of answer and reference, by how the answer relates to it."""
    lines = REFERENCES.read_text(encoding="utf-8").splitlines()
    references = random.Random(0).sample(
        sorted({json.loads(line)["answer"] for line in lines}), count
    )
    return {
        "verbatim": [(text, text) for text in references],
        "another spelling": [
            (rf"\boxed{{ {text.replace(chr(92) + 'frac', chr(92) + 'dfrac')} }}", text)
            for text in references
        ],
        "another's": list(zip(references[1:] + references[:1], references, strict=True)),
    }


def with_hostile(pairs: list[tuple[str, str]], share: float) -> list[tuple[str, str]]:
    """The same number of pairs, a share of them answered by what is meant to hang a grader."""
    draw = random.Random(1)
    hostile = draw.sample(range(len(pairs)), round(share * len(pairs)))
    found = list(pairs)
    for number, index in enumerate(hostile):
        found[index] = (HOSTILE[number % len(HOSTILE)], pairs[index][1])
    return found


class Contestant:
    """A process with the graders of one checkout, which grades a batch when told to."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).resolve()), "--serve"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def grade(self, grader: str, pairs: list[tuple[str, str]]) -> dict[str, Any]:
        """Returns the seconds that a batch took, and how many were paid and ended at the deadline."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"grader": grader, "pairs": pairs}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the graders of {self._process.args} ended early")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve() -> None:
    """The inside of a contestant: a batch per line, answered with seconds and counts."""
    from papo.rewards.grading_pool import Grading, GradingPool, Verdict

    with GradingPool(num_workers=WORKERS, deadline_seconds=DEADLINE_SECONDS) as pool:
        pool.grade([Grading("mathruler", str(number), "1") for number in range(WORKERS)])
        for line in sys.stdin:
            wanted = json.loads(line)
            gradings = [Grading(wanted["grader"], *pair) for pair in wanted["pairs"]]
            started = time.monotonic()
            verdicts = pool.grade(gradings)
            content = {
                "seconds": time.monotonic() - started,
                "paid": verdicts.count(Verdict.CORRECT),
                "timeouts": verdicts.count(Verdict.TIMEOUT),
            }
            print(json.dumps(content), flush=True)


def measure(repetitions: int, *, count: int = 600, other: Path | None = None) -> list[Row]:
    """Rows of speed, of what hostile answers cost, and, beside another checkout, of both in turn."""
    here = Contestant(REPOSITORY)
    there = None if other is None else Contestant(other.resolve())
    try:
        rows = []
        for case, pairs in answers(count).items():
            rows += _speeds(here, case, pairs, repetitions)
            if there is not None:
                rows.append(_beside(here, there, case, pairs, repetitions))
        return rows + _lost(here, answers(count)["another spelling"], repetitions)
    finally:
        here.close()
        if there is not None:
            there.close()


def _speeds(
    here: Contestant, case: str, pairs: list[tuple[str, str]], repetitions: int
) -> list[Row]:
    paid: dict[str, str] = {}

    def turn(grader: str) -> float:
        """Seconds per answer."""
        asked = pairs[:: SLOW.get(grader, 1)]
        found = here.grade(grader, asked)
        paid[grader] = f"{found['paid']} of {len(asked)}"
        return float(found["seconds"]) / len(asked)

    seconds = take_turns(
        {grader: partial(turn, grader) for grader in GRADERS}, repetitions=repetitions, warm_ups=1
    )
    details = {"seconds per answer": seconds, "paid": paid}
    rows = [
        row_of(
            spread([1 / taken for taken in seconds[grader]]),
            benchmark=f"gradings per second: {grader}",
            case=case,
            goal=None,
            unit="/s",
            details=details,
        )
        for grader in GRADERS
    ]
    return rows + [
        row_of(
            ratios(seconds[grader], seconds["combined"]),
            benchmark=f"grading: {grader} / combined",
            case=case,
            goal=None,
            details=details,
        )
        for grader in GRADERS[:2]
    ]


def _beside(
    here: Contestant, there: Contestant, case: str, pairs: list[tuple[str, str]], repetitions: int
) -> Row:
    found: dict[str, dict[str, Any]] = {}

    def turn(name: str, side: Contestant) -> float:
        found[name] = side.grade("combined", pairs)
        return float(found[name]["seconds"])

    seconds = take_turns(
        {"there": partial(turn, "there", there), "here": partial(turn, "here", here)},
        repetitions=repetitions,
        warm_ups=1,
    )
    return row_of(
        ratios(seconds["there"], seconds["here"]),
        benchmark="grading: combined of the other checkout / combined",
        case=case,
        goal=(">=", 0.5),
        details={"seconds": seconds, "last": found, "answers": len(pairs)},
    )


def _lost(here: Contestant, pairs: list[tuple[str, str]], repetitions: int) -> list[Row]:
    rows = []
    for grader in GRADERS:
        asked = pairs[:: SLOW.get(grader, 1)]
        last: dict[float, dict[str, Any]] = {}

        def turn(
            share: float,
            grader: str = grader,
            asked: list[tuple[str, str]] = asked,
            last: dict[float, Any] = last,
        ) -> float:
            last[share] = here.grade(grader, with_hostile(asked, share))
            return float(last[share]["seconds"])

        seconds = take_turns(
            {str(share): partial(turn, share) for share in SHARES_HOSTILE},
            repetitions=repetitions,
            warm_ups=0,
        )
        for share in SHARES_HOSTILE[1:]:
            lost = [a - b for a, b in zip(seconds[str(share)], seconds["0.0"], strict=True)]
            rows.append(
                row_of(
                    spread(lost),
                    benchmark=f"seconds lost to hostile answers: {grader}",
                    case=f"{len(asked)} answers, {100 * share:.0f} % hostile, {last[share]['timeouts']} out of time",
                    goal=None,
                    unit=" s",
                    details={
                        "seconds": seconds,
                        "last": {str(key): value for key, value in last.items()},
                    },
                )
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grading")
    parser.add_argument("--repetitions", type=repetition_count, default=3)
    parser.add_argument("--count", type=int, default=600, help="real answers of each case")
    parser.add_argument("--other", type=Path, help="another checkout, measured beside this one")
    arguments = parser.parse_args()
    started_as = environment()
    rows = measure(arguments.repetitions, count=arguments.count, other=arguments.other)
    content = results(rows, repetitions=arguments.repetitions)
    content.update(started_as)
    write(OUTPUT / "grading.json", content)
    print(table(content["rows"]))


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        main()
