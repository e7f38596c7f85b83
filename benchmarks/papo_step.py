"""A whole PAPO step against TRL's PAPOTrainer (1.7.1, the last release that has one).

4 prompts x 8 responses, 128 image tokens, one optimiser step. TRL scores the masked view with
gradient; here it is scored once per rollout without gradient (the authors' form) and, for
comparison like for like, in the update with gradient.
"""

from typing import Any

from benchmarks.contest import PeerMissing, own_command, peer_command, step_seconds
from benchmarks.measure import ratios
from benchmarks.report import Row, not_measured, row_of, run_alone

GOALS = {
    ("no_gradient", 64): 4.0,
    ("no_gradient", 256): 2.7,
    ("gradient", 64): 3.5,
    ("gradient", 256): 1.9,
}
LABELS = {"no_gradient": "masked view without gradient", "gradient": "masked view with gradient"}


def measure(repetitions: int) -> list[Row]:
    return [row for tokens in (64, 256) for row in _rows(tokens, repetitions)]


def _rows(tokens: int, repetitions: int) -> list[Row]:
    benchmark, cases = "PAPO step: TRL / papo", {v: f"T={tokens}, {LABELS[v]}" for v in LABELS}
    try:
        commands = {
            **{variant: own_command(variant, tokens) for variant in LABELS},
            "trl_papo": peer_command("papo", tokens),
        }
        seconds, hello = step_seconds(commands, repetitions)
    except PeerMissing as missing:
        return [not_measured(benchmark, case, str(missing)) for case in cases.values()]
    details: dict[str, Any] = {"seconds": seconds, "said": hello}
    return [
        row_of(
            ratios(seconds["trl_papo"], seconds[variant]),
            benchmark=benchmark,
            case=case,
            goal=(">=", GOALS[variant, tokens]),
            details=details,
        )
        for variant, case in cases.items()
    ]


def main() -> None:
    run_alone("papo_step", measure, repetitions=3)


if __name__ == "__main__":
    main()
