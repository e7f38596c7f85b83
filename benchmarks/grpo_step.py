"""A whole GRPO step against TRL's current GRPOTrainer; shapes as in papo_step."""

from benchmarks.contest import PeerMissing, own_command, peer_command, step_seconds
from benchmarks.measure import ratios
from benchmarks.report import Row, not_measured, row_of, run_alone

GOALS = {64: 4.0, 256: 2.5}


def measure(repetitions: int) -> list[Row]:
    return [_row(tokens, repetitions) for tokens in GOALS]


def _row(tokens: int, repetitions: int) -> Row:
    benchmark, case = "GRPO step: TRL / papo", f"T={tokens}"
    try:
        commands = {"grpo": own_command("grpo", tokens), "trl_grpo": peer_command("grpo", tokens)}
        seconds, hello = step_seconds(commands, repetitions)
    except PeerMissing as missing:
        return not_measured(benchmark, case, str(missing))
    return row_of(
        ratios(seconds["trl_grpo"], seconds["grpo"]),
        benchmark=benchmark,
        case=case,
        goal=(">=", GOALS[tokens]),
        details={"seconds": seconds, "said": hello},
    )


def main() -> None:
    run_alone("grpo_step", measure, repetitions=3)


if __name__ == "__main__":
    main()
