"""Scoring one group, forward and backward: shared prefix against every row with its own prompt.

Two alternatives: `plain`, the Hugging Face forward pass on inputs repeated G times, which is what
trainers do; and this project's own `padded` backend, which already encodes the image once. Also
reports useful MFU: the operations of the shared way, divided by time and by the measured peak.
Operations are counted by papo.models.flops.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.measure import cpu_seconds, matmul_flops_per_second, ratios, spread, take_turns
from benchmarks.models import (
    build_model,
    build_word_tokenizer,
    calibrated_config,
    plain_logprobs,
    policy_of,
    problems,
    responses,
)
from benchmarks.report import Row, row_of, run_alone
from papo.models.flops import ScoringShape, padded_flops, shared_flops
from papo.types import IMAGE, PictureLayout

SHARED = "auto"
"""The setting of `model.scoring` under test: the default."""

FORWARD_AND_BACKWARD = 3
"""A backward pass costs twice its forward pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCase:
    """One group: prompt tokens P (three quarters of them image), response tokens T, responses G."""

    prompt_tokens: int
    response_tokens: int
    num_responses: int
    grid: tuple[int, int]

    @property
    def name(self) -> str:
        return f"P={self.prompt_tokens} T={self.response_tokens} G={self.num_responses}"


_GRIDS = {128: (16, 24), 512: (32, 48), 1024: (48, 64)}


def group_case(prompt_tokens: int, response_tokens: int, num_responses: int) -> GroupCase:
    return GroupCase(
        prompt_tokens=prompt_tokens,
        response_tokens=response_tokens,
        num_responses=num_responses,
        grid=_GRIDS[prompt_tokens],
    )


CASES = tuple(
    group_case(*shape)
    for shape in ((128, 64, 8), (512, 256, 8), (1024, 512, 8), (1024, 64, 8), (128, 512, 8))
)


class GroupScoring:
    """A model and one group, ready to be scored with gradient in each of the ways compared."""

    def __init__(self, case: GroupCase) -> None:
        tokenizer = build_word_tokenizer()
        self.model = build_model(calibrated_config(tokenizer), tokenizer)
        self.policies = {
            name: policy_of(self.model, tokenizer, scoring=scoring)
            for name, scoring in (("shared", SHARED), ("twopass", "twopass"), ("padded", "padded"))
        }
        self.groups = self.policies["shared"].encode(
            problems(
                self.policies["shared"],
                grid=case.grid,
                prompt_tokens=case.prompt_tokens,
                count=1,
            )
        )
        self.response_ids, self.response_mask = responses(case.num_responses, case.response_tokens)
        self.flops = group_flops(self.model.config, case)

    def logprobs(self, way: str) -> torch.Tensor:
        """log p of the response tokens, with gradient. [rollout token]"""
        if way == "plain":
            return plain_logprobs(self.model, self.groups[0], self.response_ids)
        return (
            self.policies[way]
            .score(self.groups, self.response_ids, self.response_mask)[IMAGE]
            .logprobs
        )

    def step(self, way: str) -> None:
        """Forward and backward. Gradients stay allocated, as between the micro-batches of a step."""
        self.model.zero_grad(set_to_none=False)
        (-self.logprobs(way).mean()).backward()


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFlops:
    """Forward operations to score one group.

    Attributes:
        plain: every response with its own copy of the image and the prompt.
        padded: the image once, the prompt per response.
        shared: image and prompt once. Nothing exact does with less: what useful MFU counts.
    """

    plain: int
    padded: int
    shared: int


def group_flops(config: Any, case: GroupCase) -> GroupFlops:
    shape = ScoringShape(
        prompt_lengths=(case.prompt_tokens,),
        response_lengths=((case.response_tokens,) * case.num_responses,),
        pictures=((PictureLayout(rows=case.grid[0], columns=case.grid[1], token_side=2),),),
    )
    return GroupFlops(
        plain=padded_flops(config, shape, images_per_response=True).total,
        padded=padded_flops(config, shape, images_per_response=False).total,
        shared=shared_flops(config, shape).total,
    )


WAYS = ("plain", "padded", "twopass", "shared")


def measure(repetitions: int) -> list[Row]:
    peak = matmul_flops_per_second()
    rows = []
    for case in CASES:
        scoring = GroupScoring(case)
        timed: dict[str, Callable[[], float]] = {
            way: partial(cpu_seconds, partial(scoring.step, way)) for way in WAYS
        }
        seconds = take_turns(timed, repetitions=repetitions, warm_ups=1)
        rows += _rows(case, scoring.flops, seconds, peak)
    return rows


def _rows(
    case: GroupCase, counted: GroupFlops, seconds: dict[str, list[float]], peak: float
) -> list[Row]:
    details = {
        "seconds": seconds,
        "flop_ratio_plain": counted.plain / counted.shared,
        "flop_ratio_padded": counted.padded / counted.shared,
        "forward_gflop": {
            "plain": counted.plain / 1e9,
            "padded": counted.padded / 1e9,
            "shared": counted.shared / 1e9,
        },
    }
    useful = FORWARD_AND_BACKWARD * counted.shared / peak
    return [
        row_of(
            ratios(seconds["plain"], seconds["shared"]),
            benchmark="scoring fwd+bwd: plain / shared",
            case=case.name,
            goal=(">=", 0.9 * counted.plain / counted.shared),
            details=details,
        ),
        row_of(
            ratios(seconds["padded"], seconds["shared"]),
            benchmark="scoring fwd+bwd: padded / shared",
            case=case.name,
            goal=(">=", 1.0),
            details=details,
        ),
        row_of(
            ratios(seconds["twopass"], seconds["shared"]),
            benchmark="scoring fwd+bwd: twopass / shared",
            case=case.name,
            goal=None,
        ),
        *(
            row_of(
                spread([useful / s for s in seconds[way]]),
                benchmark=f"useful MFU of scoring, {way}",
                case=case.name,
                goal=None,
                unit="%",
            )
            for way in WAYS
        ),
    ]


def main() -> None:
    run_alone("scoring", measure, repetitions=2)


if __name__ == "__main__":
    main()
