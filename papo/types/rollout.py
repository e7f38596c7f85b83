"""What rolling out and scoring produce: Responses, Rewards, RolloutBatch, TokenScores.

Axes: `rollout` = N prompts * G responses, the G rollouts of a prompt contiguous; `token` = response
tokens, padded on the right. Log-probabilities in nats, exactly 0.0 at padding in every view.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from papo.types.problem import PromptGroup


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Responses:
    """What the policy wrote.

    Attributes:
        ids: sampled token ids, the end-of-turn token included; padding is arbitrary but valid.
        mask: True where the policy sampled the token.
        logprobs: log pi_old of the sampled tokens (temperature applied, banned tokens excluded,
            top-p *not* applied), 0.0 at padding; of a server `behaviour_logprobs`, until they are scored.
        finished: True where the response ended by itself before the token limit.
        texts: the decoded responses, special tokens removed.
        behaviour_logprobs: what the engine that drew the tokens says of them, 0.0 at padding; None where
            that is this policy itself, whose `logprobs` are.
        from_server: True where a server wrote the response; None where no server is asked.
    """

    ids: Int[Tensor, "rollout token"]
    mask: Bool[Tensor, "rollout token"]
    logprobs: Float[Tensor, "rollout token"]
    finished: Bool[Tensor, " rollout"]
    texts: tuple[str, ...]
    behaviour_logprobs: Float[Tensor, "rollout token"] | None = None
    from_server: Bool[Tensor, " rollout"] | None = None

    def engine(self, row: int) -> str | None:
        """Who wrote a response, "server" or "local"; None where no server is asked."""
        if self.from_server is None:
            return None
        return "server" if bool(self.from_server[row]) else "local"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rewards:
    """What a reward function says of a list of responses.

    Attributes:
        total: R_i, what the advantage is computed from.
        correct: the accuracy verdict (gating by correctness reads it).
        components: named parts per rollout, e.g. accuracy, format; logged as their mean.
        timeouts: how many gradings were killed at the deadline (each counted as wrong).
    """

    total: Float[Tensor, " rollout"]
    correct: Bool[Tensor, " rollout"]
    components: Mapping[str, Float[Tensor, " rollout"]] = field(default_factory=dict)
    timeouts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenScores:
    """What one forward pass per view says of the response tokens; every field 0.0 at padding.

    Attributes:
        logprobs: log pi_theta(o_t | q, I).
        masked_logprobs: log pi_theta(o_t | q, I_mask).
        entropy: full-vocabulary entropy of pi_theta(. | q, I, o_<t).
        masked_entropy: full-vocabulary entropy of pi_theta(. | q, I_mask, o_<t).
        perception_kl: full-vocabulary KL(pi_theta(. | I) || pi_theta(. | I_mask)).
    """

    logprobs: Float[Tensor, "rollout token"]
    masked_logprobs: Float[Tensor, "rollout token"] | None = None
    entropy: Float[Tensor, "rollout token"] | None = None
    masked_entropy: Float[Tensor, "rollout token"] | None = None
    perception_kl: Float[Tensor, "rollout token"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MinibatchCounts:
    """What the terms of a minibatch are divided by, also where this process has only a part of it.

    Attributes:
        num_tokens: response tokens of the minibatch.
        num_rollouts: responses of the minibatch.
    """

    num_tokens: int
    num_rollouts: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RolloutBatch:
    """Everything an update needs to know of finished rollouts; constant during the update.

    Attributes:
        num_responses: G; rollouts of one prompt are contiguous.
        response_mask: True where the policy sampled the token.
        old_logprobs: under the rollout policy, full image.
        ref_logprobs: under the reference policy, full image; None when its weight is 0.
        masked_logprobs: under the rollout policy, masked image; None when nothing reads it.
        behaviour_logprobs: under the engine that drew the tokens; None where that is the rollout policy.
        advantages: A_i, one per rollout.
        correct: the accuracy verdict per rollout.
        response_ids: the tokens themselves; None where only the objective is evaluated.
        groups: the encoded prompts, one per G rollouts; empty where only the objective is evaluated.

    Raises:
        ValueError: the shapes disagree, a response is empty, or padding holds anything but 0.0.
    """

    num_responses: int
    response_mask: Bool[Tensor, "rollout token"]
    old_logprobs: Float[Tensor, "rollout token"]
    advantages: Float[Tensor, " rollout"]
    correct: Bool[Tensor, " rollout"]
    ref_logprobs: Float[Tensor, "rollout token"] | None = None
    masked_logprobs: Float[Tensor, "rollout token"] | None = None
    behaviour_logprobs: Float[Tensor, "rollout token"] | None = None
    response_ids: Int[Tensor, "rollout token"] | None = None
    groups: tuple[PromptGroup, ...] = ()

    def __post_init__(self) -> None:
        num_rollouts = self.response_mask.shape[0]
        if self.num_responses < 1 or num_rollouts % self.num_responses:
            raise ValueError(
                f"a RolloutBatch holds whole groups; got {num_rollouts} rollouts "
                f"with num_responses={self.num_responses}"
            )
        if self.groups and len(self.groups) * self.num_responses != num_rollouts:
            raise ValueError(
                f"a RolloutBatch needs one PromptGroup per {self.num_responses} rollouts; "
                f"got {len(self.groups)} groups for {num_rollouts} rollouts"
            )
        if not self.response_mask.any(dim=1).all():
            raise ValueError(
                "a RolloutBatch holds no empty response; one row of response_mask is all False"
            )
        for name in ("old_logprobs", "ref_logprobs", "masked_logprobs", "behaviour_logprobs"):
            logprobs = getattr(self, name)
            # Padding must be 0.0 in every view: then its ratio is 1, its KL 0, its gradient finite.
            if logprobs is not None and not bool((logprobs[~self.response_mask] == 0.0).all()):
                raise ValueError(
                    f"{name} must be exactly 0.0 at padding; use papo.functional.zero_padding"
                )

    @property
    def num_rollouts(self) -> int:
        return self.response_mask.shape[0]

    @property
    def num_tokens(self) -> int:
        return int(self.response_mask.sum())

    def select_groups(self, start: int, stop: int) -> "RolloutBatch":
        """Returns the rollouts of groups start..stop-1 (a minibatch or micro-batch of whole groups)."""
        rows = slice(start * self.num_responses, stop * self.num_responses)
        rowwise: dict[str, Any] = {
            f.name: value[rows]
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), torch.Tensor)
        }
        return replace(self, groups=self.groups[start:stop], **rowwise)
