"""What rolling out and scoring produce: Responses, Rewards, ViewScores, RolloutBatch.

Axes: `rollout` = N prompts * G responses, the G rollouts of a prompt contiguous; `token` = response
tokens, padded on the right. Log-probabilities in nats, exactly 0.0 at padding in every view.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from papo.types.problem import IMAGE, PromptGroup


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """Responses that an engine has begun to write.

    Attributes:
        finish: waits for them, once; None: they could not be written, and are to be sampled anew.
        stop: lets go of them.
    """

    finish: Callable[[], Responses | None]
    stop: Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rewards:
    """What a reward function says of a list of responses.

    Attributes:
        total: R_i, what the advantage is computed from.
        correct: the accuracy verdict (gating by correctness reads it).
        components: named parts per rollout, e.g. accuracy, format; logged as their mean.
        timeouts: how many gradings were killed at the deadline (each counted as wrong).
        flawed: for every response the spans [start, end) of its characters that claim what is not so; None where
            nobody looked.
        known: whether the verdict on a response may be trained on; elsewhere it is there for metrics alone. None: all
            are.
    """

    total: Float[Tensor, " rollout"]
    correct: Bool[Tensor, " rollout"]
    components: Mapping[str, Float[Tensor, " rollout"]] = field(default_factory=dict)
    timeouts: int = 0
    flawed: tuple[tuple[tuple[int, int], ...], ...] | None = None
    known: Bool[Tensor, " rollout"] | None = None


Quantity = Literal[
    "logprobs",
    "entropy",
    "kl_from_image",
    "jsd_from_image",
    "nucleus_entropy",
    "image_cosine",
    "image_cosine_layers",
]
"""What can be known of each token given a view: the names of ViewScores' fields."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ViewScores:
    """What one pass over a view of the prompts says of the response tokens; every field 0.0 at padding.

    Attributes:
        logprobs: log pi(o_t | q, view).
        entropy: full-vocabulary entropy of pi(. | q, view, o_<t).
        kl_from_image: full-vocabulary KL(pi(. | q, I) || pi(. | q, view)); None for the image itself.
        jsd_from_image: Jensen-Shannon divergence of the same two, in [0, log 2]; without gradient.
        nucleus_entropy: entropy of the renormalised smallest set of tokens that has 0.95 of the mass; without
            gradient.
        image_cosine: cosine of the last hidden state at the token itself with the mean of those at the prompt's
            image tokens; 0.0 for a prompt without any; without gradient.
        image_cosine_layers: mean over the hidden states, the embeddings' included, and the image tokens of the
            cosine of the two; 0.0 for a prompt without any; without gradient.
    """

    logprobs: Float[Tensor, "rollout token"]
    entropy: Float[Tensor, "rollout token"] | None = None
    kl_from_image: Float[Tensor, "rollout token"] | None = None
    jsd_from_image: Float[Tensor, "rollout token"] | None = None
    nucleus_entropy: Float[Tensor, "rollout token"] | None = None
    image_cosine: Float[Tensor, "rollout token"] | None = None
    image_cosine_layers: Float[Tensor, "rollout token"] | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "ViewScores":
        """Returns the scores with every quantity that is there changed."""
        return ViewScores(
            **{
                f.name: change(value)
                for f in fields(self)
                if (value := getattr(self, f.name)) is not None
            }
        )

    @staticmethod
    def concatenate(parts: Sequence["ViewScores"]) -> "ViewScores":
        """The scores of one batch after another's; all have the same quantities and numbers of tokens."""
        first = parts[0]
        return ViewScores(
            **{
                f.name: torch.cat([getattr(part, f.name) for part in parts])
                for f in fields(first)
                if getattr(first, f.name) is not None
            }
        )


TokenScores = Mapping[str, ViewScores]
"""The scores of the response tokens by the name of the view; the unchanged prompt is `image`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What must be scored, and so what a step costs: one pass for each view of `old` but the image (the
    rollout policy's, without gradient) and one for each of `now` (in every update, with gradient).

    Attributes:
        reference: log-probabilities of the reference policy.
        behaviour: those of the engine that drew the tokens, where that is not the rollout policy.
        flagged: the tokens of claims that the reward calls false.
        old: (view, quantity) under the rollout policy.
        now: (view, quantity) under the policy that is updated, beside the image's log-probabilities.
    """

    reference: bool = False
    behaviour: bool = False
    flagged: bool = False
    old: frozenset[tuple[str, Quantity]] = frozenset()
    now: frozenset[tuple[str, Quantity]] = frozenset()

    def __or__(self, other: "Needs") -> "Needs":
        return Needs(
            reference=self.reference or other.reference,
            behaviour=self.behaviour or other.behaviour,
            flagged=self.flagged or other.flagged,
            old=self.old | other.old,
            now=self.now | other.now,
        )

    @property
    def old_views(self) -> tuple[str, ...]:
        """Views that the rollout policy looks at once per rollout, in the order of their names."""
        return tuple(sorted({view for view, _ in self.old} - {IMAGE}))

    @property
    def live_views(self) -> tuple[str, ...]:
        """Views that every update scores beside the image, in the order of their names."""
        return tuple(sorted({view for view, _ in self.now} - {IMAGE}))

    @property
    def measures_old(self) -> bool:
        """Whether the rollout policy is asked for more than log-probs of sampled tokens given other views."""
        return any(quantity != "logprobs" for _, quantity in self.old)

    @property
    def views(self) -> frozenset[str]:
        """All that prompts must be shown in."""
        return frozenset({*self.old_views, *self.live_views})

    @property
    def full_vocabulary(self) -> bool:
        """Whether the scores of an update must hold more than the log-probs of sampled tokens."""
        return any(quantity != "logprobs" for _, quantity in self.now)


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
        behaviour_logprobs: under the engine that drew the tokens; None where that is the rollout policy.
        old_views: what the rollout policy says given other views, by name; those that something reads.
        advantages: A of every token.
        correct: the accuracy verdict per rollout; False where none is known.
        known: where one is known; None: everywhere.
        rewards: R of every response; None where only the objective is evaluated.
        flagged: True at tokens of claims that the reward calls false; None where nothing reads it.
        term_weights: of the tokens, by the name of a term that chooses among them, once per rollout.
        response_ids: the tokens themselves; None where only the objective is evaluated.
        groups: the encoded prompts, one per G rollouts; empty where only the objective is evaluated.

    Raises:
        ValueError: the shapes disagree, a response is empty, or padding holds anything but 0.0.
    """

    num_responses: int
    response_mask: Bool[Tensor, "rollout token"]
    old_logprobs: Float[Tensor, "rollout token"]
    advantages: Float[Tensor, "rollout token"]
    correct: Bool[Tensor, " rollout"]
    ref_logprobs: Float[Tensor, "rollout token"] | None = None
    behaviour_logprobs: Float[Tensor, "rollout token"] | None = None
    old_views: Mapping[str, ViewScores] = field(default_factory=dict)
    known: Bool[Tensor, " rollout"] | None = None
    rewards: Float[Tensor, " rollout"] | None = None
    flagged: Bool[Tensor, "rollout token"] | None = None
    term_weights: Mapping[str, Float[Tensor, "rollout token"]] = field(default_factory=dict)
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
        names = ("old_logprobs", "ref_logprobs", "behaviour_logprobs")
        logprobs_of = {name: getattr(self, name) for name in names}
        logprobs_of |= {view: scores.logprobs for view, scores in self.old_views.items()}
        for name, logprobs in logprobs_of.items():
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
        views = {view: scores.map(lambda t: t[rows]) for view, scores in self.old_views.items()}
        return replace(
            self,
            groups=self.groups[start:stop],
            old_views=views,
            term_weights={name: weights[rows] for name, weights in self.term_weights.items()},
            **rowwise,
        )
