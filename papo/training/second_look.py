"""Looking again: responses that are written and graded are scored by the reference, and given other views."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from papo.parallel import NoSharding, Sharding
from papo.training.draft import Draft
from papo.training.flags import flagged_tokens
from papo.training.microbatches import MicrobatchCutter
from papo.training.prompt_reader import ActingPolicy
from papo.training.reference import ReferenceModule
from papo.types import IMAGE, Needs, PromptGroup, RolloutBatch, TokenScores, ViewScores


class SecondLook:
    """Scores what a rollout must know before it is trained on; without gradient.

    Args:
        policy: the rollout policy.
        reference: the initial one; None when nothing needs it.
        needs: what must be scored.
        num_responses: G.
        microbatches: how passes are cut.
        sharding: of the weights.
    """

    def __init__(
        self,
        *,
        policy: ActingPolicy,
        reference: ReferenceModule | None,
        needs: Needs,
        num_responses: int,
        microbatches: MicrobatchCutter,
        sharding: Sharding | NoSharding,
    ) -> None:
        self.policy = policy
        self.reference = reference
        self.needs = needs
        self.num_responses = num_responses
        self.microbatches = microbatches
        self.sharding = sharding

    def __call__(
        self, own: Draft, advantages: Float[Tensor, " rollout"], fillers: int
    ) -> RolloutBatch:
        """Returns the groups that are this rank's to train, scored.

        Args:
            own: these groups.
            advantages: of their responses.
            fillers: passes over them that it takes part in beyond its own.
        """
        device, responses = self.policy.device, own.responses
        correct, known = own.rewards.correct, own.rewards.known
        batch = RolloutBatch(
            num_responses=self.num_responses,
            groups=own.groups,
            response_ids=responses.ids.to(device),
            response_mask=responses.mask.to(device),
            old_logprobs=responses.logprobs.to(device),
            advantages=advantages.to(device)[:, None].expand(responses.mask.shape),
            # What nobody knows is not there to be read.
            correct=(correct if known is None else correct & known).to(device),
            known=None if known is None else known.to(device),
            rewards=own.rewards.total.to(device),
        )
        if self.needs.flagged:
            flagged = flagged_tokens(self.policy.encoder.tokenizer, responses, own.rewards)
            batch = replace(batch, flagged=flagged.to(device))
        if responses.behaviour_logprobs is not None:
            # Another program drew the tokens, or another picture: what was said of them is no start of an update.
            batch = replace(
                batch,
                behaviour_logprobs=responses.behaviour_logprobs.to(device),
                old_logprobs=self._in_parts(batch, self._score, fillers),
            )
        if (reference := self.reference) is not None:
            scores = self._in_parts(batch, reference.score, fillers)
            self.sharding.reshard(reference.policy)
            batch = replace(batch, ref_logprobs=scores)
        return replace(batch, old_views=self._old_views(batch, fillers))

    def _old_views(self, batch: RolloutBatch, fillers: int) -> dict[str, ViewScores]:
        """What the rollout policy says given other views, and whole distributions where they are needed."""
        if self.needs.measures_old:
            measure = partial(self.policy.measure, wanted=self.needs.old)
            return self._views_in_parts(batch, measure, fillers)
        return {
            view: ViewScores(
                logprobs=self._in_parts(batch, partial(self._score_view, view=view), fillers)
            )
            for view in self.needs.old_views
        }

    def _score_view(
        self,
        groups: Sequence[PromptGroup],
        ids: Int[Tensor, "rollout token"],
        mask: Bool[Tensor, "rollout token"],
        *,
        view: str,
    ) -> Float[Tensor, "rollout token"]:
        """log pi(o_t | q, view) alone: one forward pass."""
        return self.policy.score(groups, ids, mask, views=(view,))[view].logprobs

    def _score(self, *of_responses: Any) -> Tensor:
        return self.policy.score(*of_responses)[IMAGE].logprobs

    def _in_parts(self, batch: RolloutBatch, score: Callable[..., Tensor], fillers: int) -> Tensor:
        def scores(*of_responses: Any) -> TokenScores:
            return {IMAGE: ViewScores(logprobs=score(*of_responses))}

        return self._views_in_parts(batch, scores, fillers)[IMAGE].logprobs

    def _views_in_parts(
        self, batch: RolloutBatch, score: Callable[..., TokenScores], fillers: int
    ) -> dict[str, ViewScores]:
        """Scores micro-batch by micro-batch, which bounds memory; padded as the batch is."""
        num_tokens = batch.response_mask.shape[1]

        def padded(values: Tensor) -> Tensor:
            return torch.nn.functional.pad(values, (0, num_tokens - values.shape[1]))

        def attempt(passes: Iterator[RolloutBatch]) -> dict[str, ViewScores]:
            parts = []
            for part in passes:
                scores = score(part.groups, part.response_ids, part.response_mask)
                parts.append({view: seen.map(padded) for view, seen in scores.items()})
            for part in self.microbatches.fillers(batch, fillers):
                score(part.groups, part.response_ids, part.response_mask)
            return {
                view: ViewScores.concatenate([part[view] for part in parts]) for view in parts[0]
            }

        return self.microbatches.retried(batch, attempt)
