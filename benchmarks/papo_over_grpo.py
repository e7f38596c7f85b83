"""What PAPO adds to a GRPO step here, with the masked view scored once per rollout; shapes as in papo_step."""

from benchmarks.contest import own_command, step_seconds
from benchmarks.measure import ratios
from benchmarks.report import Row, row_of, run_alone

GOAL = 1.25
"""Published ratios are 1.19 to 1.42."""


def measure(repetitions: int) -> list[Row]:
    rows = []
    for tokens in (64, 256):
        commands = {name: own_command(name, tokens) for name in ("no_gradient", "grpo")}
        seconds, hello = step_seconds(commands, repetitions)
        rows.append(
            row_of(
                ratios(seconds["no_gradient"], seconds["grpo"]),
                benchmark="PAPO step / GRPO step",
                case=f"T={tokens}, masked view without gradient",
                goal=("<=", GOAL) if tokens >= 256 else None,
                details={"seconds": seconds, "said": hello},
            )
        )
    return rows


def main() -> None:
    run_alone("papo_over_grpo", measure, repetitions=3)


if __name__ == "__main__":
    main()
