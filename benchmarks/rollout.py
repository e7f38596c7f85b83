"""Sampling G responses per prompt: one prefill per prompt against `generate` on inputs repeated G times.

Repeating image and prompt per response is how trainers call `generate`. No response ends early, both
sides draw from the same distribution (temperature 1, no truncation, no vision tokens).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.measure import cpu_seconds, ratios, take_turns
from benchmarks.models import (
    build_model,
    build_word_tokenizer,
    calibrated_config,
    generate_plain,
    policy_of,
    problems,
)
from benchmarks.report import Row, row_of, run_alone
from benchmarks.scoring import SHARED, GroupCase, group_case
from papo.rollout import SharedPrefillSampler
from papo.types import derive_seeds

GOAL = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutCase:
    """Several groups sampled in one call."""

    num_prompts: int
    group: GroupCase


CASES = tuple(
    RolloutCase(num_prompts=count, group=group_case(prompt_tokens, response_tokens, 8))
    for count, prompt_tokens, response_tokens in (
        (4, 128, 64),
        (4, 512, 64),
        (2, 1024, 64),
        (4, 128, 256),
    )
)


class GroupRollout:
    """A model and prompts, ready to be continued in both ways."""

    def __init__(self, case: RolloutCase) -> None:
        tokenizer = build_word_tokenizer()
        self.case = case
        self.model = build_model(calibrated_config(tokenizer), tokenizer)
        self.policy = policy_of(self.model, tokenizer, scoring=SHARED)
        self.groups = self.policy.encode(
            problems(
                self.policy,
                grid=case.group.grid,
                prompt_tokens=case.group.prompt_tokens,
                count=case.num_prompts,
            )
        )
        self.sampler = SharedPrefillSampler(
            policy=self.policy,
            temperature=1.0,
            top_p=1.0,
            top_k=None,
            max_response_tokens=case.group.response_tokens,
            max_rows=case.num_prompts * case.group.num_responses,
        )

    def shared(self) -> int:
        """Samples with one prefill per prompt; returns the number of tokens."""
        responses = self.sampler.sample(
            self.groups, self.case.group.num_responses, seeds=derive_seeds(0, len(self.groups))
        )
        return int(responses.mask.sum())

    def plain(self) -> int:
        """`generate` on repeated inputs; returns the number of tokens."""
        group = self.case.group
        generated = generate_plain(
            self.model,
            self.groups,
            group.num_responses,
            group.response_tokens,
            torch.device("cpu"),
        )
        return generated.numel()


def measure(repetitions: int) -> list[Row]:
    rows = []
    for case in CASES:
        rollout, group = GroupRollout(case), case.group
        ways: dict[str, Callable[[], object]] = {"plain": rollout.plain, "shared": rollout.shared}
        seconds = take_turns(
            {name: partial(cpu_seconds, way) for name, way in ways.items()},
            repetitions=repetitions,
            warm_ups=1,
        )
        num_tokens = case.num_prompts * group.num_responses * group.response_tokens
        rows.append(
            row_of(
                ratios(seconds["plain"], seconds["shared"]),
                benchmark="rollout: generate / shared prefill",
                case=f"{case.num_prompts} prompts, {group.name}",
                goal=(">=", GOAL) if group.prompt_tokens >= 2 * group.response_tokens else None,
                details={"seconds": seconds, "tokens": num_tokens},
            )
        )
    return rows


def main() -> None:
    run_alone("rollout", measure, repetitions=3)


if __name__ == "__main__":
    main()
