"""Peak memory of scoring one group, forward and backward, shared against plain; fresh processes.

The peak is what is resident above weights and gradients, which exist before in every way. With
`--way` this is the fresh process itself.
"""

import argparse
import json
import sys

from benchmarks.measure import PeakMemory, in_fresh_process, spread
from benchmarks.report import Row, row_of, run_alone
from benchmarks.scoring import CASES, WAYS, GroupScoring, group_case

GOAL = 2.8


def measure(repetitions: int) -> list[Row]:
    rows = []
    for case in CASES:
        shape = (case.prompt_tokens, case.response_tokens, case.num_responses)
        peaks: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(repetitions):
            for way in WAYS:
                arguments = ["--way", way, "--shape", *map(str, shape)]
                peaks[way].append(in_fresh_process("benchmarks.scoring_memory", arguments)["bytes"])
        rows += [
            row_of(
                spread([a / b for a, b in zip(peaks[way], peaks["shared"], strict=True)]),
                benchmark=f"peak memory of scoring: {way} / shared",
                case=case.name,
                goal=(">=", GOAL)
                if way == "plain" and case.prompt_tokens >= case.response_tokens
                else None,
                details={"bytes": peaks},
            )
            for way in ("plain", "padded")
        ]
    return rows


def peak_bytes(way: str, shape: tuple[int, int, int]) -> int:
    """What one forward and backward pass adds to the resident memory of this process."""
    scoring = GroupScoring(group_case(*shape))
    for parameter in scoring.model.parameters():
        parameter.grad = parameter.new_ones(parameter.shape)
    with PeakMemory() as peak:
        scoring.step(way)
    return peak.bytes


def main() -> None:
    if "--way" not in sys.argv:
        # One process per repetition gives the same peak to about a percent.
        run_alone("scoring_memory", measure, repetitions=1)
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--way", choices=WAYS, required=True)
    parser.add_argument("--shape", type=int, nargs=3, required=True)
    arguments = parser.parse_args()
    print(json.dumps({"bytes": peak_bytes(arguments.way, tuple(arguments.shape))}))


if __name__ == "__main__":
    main()
