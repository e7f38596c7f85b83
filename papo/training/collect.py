"""The algorithm: act, judge, look again. From problems to a batch of graded, scored rollouts.

No gradient is computed here; papo.training.papo turns a batch into updates.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Protocol

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from papo.functional import group_advantages
from papo.masking import masked_fraction
from papo.training.draft import Draft, concatenate
from papo.training.microbatches import (
    MicrobatchCutter,
    repeated_prefix_tokens,
    shared_prefix_tokens,
)
from papo.training.prompts import PromptStream
from papo.training.reference import ReferenceModule
from papo.training.settings import TrainingSettings
from papo.types import (
    ImageMask,
    Policy,
    PromptGroup,
    RewardFunction,
    RolloutBatch,
    RolloutEngine,
    derive_seed,
    derive_seeds,
)


class ActingPolicy(Policy, Protocol):
    """A policy that also says where it lives and how it reads, and lets masks process pictures."""

    @property
    def device(self) -> torch.device: ...

    @property
    def shares_prefix(self) -> bool:
        """Whether scoring reads each prompt once for all its responses."""
        ...

    def process_images(self, images: Sequence[Image]) -> Float[Tensor, "patch pixel"]: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rollout:
    """One finished rollout.

    Attributes:
        draft: the prompts, responses and rewards, on the CPU.
        batch: what the update reads, on the policy's device.
        seconds: wall time of the phases rollout, reward and score.
        prompts_drawn: problems taken from the stream, dropped ones included.
        resample_rounds: rounds of dynamic sampling beyond the first draw.
        groups_dropped: groups that dynamic sampling replaced.
        drawn_accuracy: share of correct responses, dropped groups included.
        timeouts: gradings killed at the deadline, dropped groups included.
        masked_fraction: share of the patches of a prompt's images that the mask changed, mean over
            the prompts with images (0 without any); None where no masked view is needed.
    """

    draft: Draft
    batch: RolloutBatch
    seconds: dict[str, float]
    prompts_drawn: int
    resample_rounds: int
    groups_dropped: int
    drawn_accuracy: float
    timeouts: int
    masked_fraction: float | None


class Collector:
    """Collects rollouts: samples, grades and scores the responses to the next problems.

    Every random choice is seeded by where it happens (seed, rollout, round, prompt), so a resumed
    run collects what the uninterrupted one would have.

    Args:
        policy: acts, and scores its own responses to the masked image.
        reference: scores responses under the initial policy; None when its weight is 0.
        image_mask: hides part of each image; its attribute `seed`, if any, seeds the masks.
        engine: samples the responses.
        reward: grades them.
        prompts: the problems.
        settings: how many prompts, and dynamic sampling.
        num_responses: G.
        needs_masked_view: whether anything looks at the masked image.
        needs_old_masked_logprobs: whether the rollout policy's masked log-probs are read.
        seed: of the run.
    """

    def __init__(
        self,
        *,
        policy: ActingPolicy,
        reference: ReferenceModule | None,
        image_mask: ImageMask,
        engine: RolloutEngine,
        reward: RewardFunction,
        prompts: PromptStream,
        settings: TrainingSettings,
        num_responses: int,
        needs_masked_view: bool,
        needs_old_masked_logprobs: bool,
        seed: int,
    ) -> None:
        self.policy = policy
        self.reference = reference
        self.image_mask = image_mask
        # A mask that draws nothing has no seed.
        self.mask_seed = int(getattr(image_mask, "seed", 0))
        self.engine = engine
        self.reward = reward
        self.prompts = prompts
        self.settings = settings
        self.num_responses = num_responses
        self.needs_masked_view = needs_masked_view
        self.needs_old_masked_logprobs = needs_old_masked_logprobs
        self.seed = seed
        self.microbatches = MicrobatchCutter(
            prompts=settings.prompts_per_microbatch,
            tokens=settings.tokens_per_microbatch,
            count_tokens=shared_prefix_tokens if policy.shares_prefix else repeated_prefix_tokens,
        )

    @torch.no_grad()
    def collect(self, step: int, position: int) -> Rollout:
        """Returns rollout number `step`, drawing problems from `position` of the stream on.

        Raises:
            ValueError: the mask left every picture of the rollout as it was.
        """
        seconds = {"rollout": 0.0, "reward": 0.0, "score": 0.0}
        wanted = self.settings.prompts_per_rollout
        kept: list[Draft] = []
        drawn = num_kept = dropped = rounds = timeouts = 0
        num_correct = 0.0
        while True:
            missing = wanted - num_kept
            draft = self._act_and_judge(step, rounds, position + drawn, missing, seconds)
            drawn += missing
            timeouts += draft.rewards.timeouts
            num_correct += float(draft.mean_accuracies().sum())
            uniform = self._uniform_groups(draft)
            if not uniform or rounds == self.settings.max_resample:
                # After the last round the batch keeps its size: uniform groups have advantage 0.
                kept.append(draft)
                break
            dropped += len(uniform)
            informative = [i for i in range(missing) if i not in uniform]
            if informative:
                kept.append(draft.select(informative))
                num_kept += len(informative)
            rounds += 1
        draft = concatenate(kept)
        with _timed(seconds, "score"):
            batch = self._look_again(draft)
        return Rollout(
            draft=draft,
            batch=batch,
            seconds=seconds,
            prompts_drawn=drawn,
            resample_rounds=rounds,
            groups_dropped=dropped,
            drawn_accuracy=num_correct / drawn,
            timeouts=timeouts,
            masked_fraction=_mean_masked_fraction(draft.groups) if self.needs_masked_view else None,
        )

    def _act_and_judge(
        self, step: int, round_index: int, position: int, count: int, seconds: dict[str, float]
    ) -> Draft:
        with _timed(seconds, "rollout"):
            problems = self.prompts.take(position, count)
            groups = self.policy.encode(problems)
            if self.needs_masked_view:
                groups = tuple(
                    self._with_masked_view(group, step, round_index, index)
                    for index, group in enumerate(groups)
                )
                # Later rounds draw few prompts, whose pictures chance alone may leave untouched.
                if round_index == 0:
                    self._require_hidden(groups, step)
            seed = derive_seed(self.seed, "rollout", step, round_index)
            responses = self.engine.sample(
                groups, self.num_responses, derive_seeds(seed, len(groups))
            )
        with _timed(seconds, "reward"):
            per_response = [problem for problem in problems for _ in range(self.num_responses)]
            rewards = self.reward(per_response, responses.texts)
        return Draft(groups=groups, responses=responses, rewards=rewards)

    def _with_masked_view(
        self, group: PromptGroup, step: int, round_index: int, index: int
    ) -> PromptGroup:
        # A prompt without images has no masked view; its two views are one and its KL is 0.
        if group.patches is None:
            return group
        seed = derive_seed(self.mask_seed, "mask", step, round_index, index)
        generator = torch.Generator().manual_seed(seed)
        return replace(
            group, masked_patches=self.image_mask(group, generator, self.policy.process_images)
        )

    def _require_hidden(self, groups: Sequence[PromptGroup], step: int) -> None:
        """Refuses a mask that hides nothing: the perception KL would be 0 and say nothing of it."""
        # A mask without a ratio always means to hide something.
        ratio = float(getattr(self.image_mask, "ratio", 1.0))
        pictured = any(group.masked_patches is not None for group in groups)
        if ratio > 0 and pictured and _mean_masked_fraction(groups) == 0:
            raise ValueError(
                "the masked view differs from the image in at least one patch; got masked pictures "
                f"equal to the full ones in all {len(groups)} prompts of rollout {step + 1}. Raise "
                f"masking.ratio (got {ratio:g}), choose another mask (masking=), or, where the "
                "pictures are black, another data set."
            )

    def _uniform_groups(self, draft: Draft) -> set[int]:
        """Groups that dynamic sampling replaces: nothing to learn from the comparison."""
        if self.settings.max_resample == 0:
            return set()
        accuracies = draft.mean_accuracies()
        informative = (accuracies > self.settings.keep_accuracy_above) & (
            accuracies < self.settings.keep_accuracy_below
        )
        return set((~informative).nonzero()[:, 0].tolist())

    def _look_again(self, draft: Draft) -> RolloutBatch:
        responses, device = draft.responses, self.policy.device
        batch = RolloutBatch(
            num_responses=self.num_responses,
            groups=draft.groups,
            response_ids=responses.ids.to(device),
            response_mask=responses.mask.to(device),
            old_logprobs=responses.logprobs.to(device),
            advantages=group_advantages(
                draft.rewards.total,
                num_responses=self.num_responses,
                epsilon=self.settings.advantage_epsilon,
            ).to(device),
            correct=draft.rewards.correct.to(device),
        )
        if self.reference is not None:
            batch = replace(batch, ref_logprobs=self._in_parts(batch, self.reference.score))
        if self.needs_old_masked_logprobs:
            batch = replace(batch, masked_logprobs=self._in_parts(batch, self.policy.score_masked))
        return batch

    def _in_parts(self, batch: RolloutBatch, score: Callable[..., Tensor]) -> Tensor:
        """Scores micro-batch by micro-batch, which bounds memory; padded as the batch is."""
        num_tokens = batch.response_mask.shape[1]

        def attempt(passes: Iterator[RolloutBatch]) -> Tensor:
            parts = []
            for part in passes:
                logprobs = score(part.groups, part.response_ids, part.response_mask)
                parts.append(torch.nn.functional.pad(logprobs, (0, num_tokens - logprobs.shape[1])))
            return torch.cat(parts)

        return self.microbatches.retried(batch, attempt)


def _mean_masked_fraction(groups: Sequence[PromptGroup]) -> float:
    fractions = [masked_fraction(group) for group in groups if group.masked_patches is not None]
    return sum(fractions) / len(fractions) if fractions else 0.0


@contextmanager
def _timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    started = perf_counter()
    yield
    seconds[phase] += perf_counter() - started
