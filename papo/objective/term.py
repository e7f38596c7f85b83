"""A term: one number per token, with its weight, its direction and how it is averaged."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from jaxtyping import Bool, Float
from torch import Tensor

from papo.functional import linear_decay, sequence_mean, token_mean
from papo.objective.errors import SettingError
from papo.types import IMAGE, MinibatchCounts, Needs, RolloutBatch, TokenScores

Average = Literal["token", "sequence"]
Direction = Literal["lower", "raise"]
PolicyOfView = Literal["old", "current", "current_detached"]
Number = float | int

TokenValues = Float[Tensor, "rollout token"]
TokenChoice = Bool[Tensor, "rollout token"]


@dataclass(kw_only=True, eq=False)
class Term(ABC):
    """One term of the objective. A term of your own derives from this: `needs` and `__call__`.

    Args:
        weight: 0 is off; positive otherwise, the sign is the direction's affair.
        direction: "lower": the term is minimised; "raise": maximised.
        average: every "token" weighs the same, or every "sequence".
        anneal_until: share of the run, above 0 to 1, at which the weight has fallen linearly to 0; None keeps it.

    Raises:
        SettingError: a setting is out of its range.
    """

    weight: Number
    direction: str = "lower"
    average: str = "token"
    anneal_until: Number | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise SettingError(
                f"{{weight}} is a weight, 0 (off) or positive; got {self.weight}. The sign of a term is its "
                f"direction ({self.direction})."
            )
        self.check_choice("direction", get_args(Direction))
        self.check_choice("average", get_args(Average))
        if self.anneal_until is not None and not 0.0 < self.anneal_until <= 1.0:
            raise SettingError(
                "{anneal_until} is the share of the run, above 0 and at most 1, at which a weight reaches 0; "
                f"got {self.anneal_until}. null keeps the weight."
            )

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What must be scored for this term; the objective asks for it where the term has a weight."""

    @abstractmethod
    def __call__(self, batch: RolloutBatch, scores: TokenScores) -> TokenValues:
        """Returns the term at each token, nats; what stands at padding is not read.

        Args:
            batch: the rollout; constant.
            scores: of the policy that is updated, with gradient: the image, and the views of `needs.now`.
        """

    chooses: ClassVar[bool] = False
    """Whether only tokens count that `choose` names; then the objective takes the mean over these."""

    def choose(self, batch: RolloutBatch) -> TokenChoice:
        """Returns the tokens that count; asked once per rollout, where `chooses` is True.

        Args:
            batch: the whole rollout, after credits; constant, without its prompts.
        """
        raise NotImplementedError

    def watch(self, batch: RolloutBatch, scores: TokenScores) -> Mapping[str, TokenValues]:
        """Returns numbers per token to log beside the term, averaged over tokens; none by default."""
        return {}

    def watch_responses(
        self, batch: RolloutBatch, scores: TokenScores
    ) -> Mapping[str, TokenValues]:
        """As `watch`, averaged within each response and then over responses."""
        return {}

    def weight_at(self, progress: float) -> float:
        """Returns what the term is multiplied by in the loss, sign included.

        Args:
            progress: share of the run that is done, 0 to 1.
        """
        signed = -self.weight if self.direction == "raise" else self.weight
        if self.anneal_until is None:
            return float(signed)
        return float(signed) * linear_decay(progress, until=self.anneal_until)

    def check_choice(self, name: str, allowed: tuple[str, ...]) -> None:
        if (value := getattr(self, name)) not in allowed:
            raise SettingError(f"{{{name}}} must be one of {', '.join(allowed)}; got {value!r}")

    def check_number(self, name: str, *, above: float, below: float = math.inf) -> None:
        """Makes the setting a float; None passes, it switches a bound off."""
        value = getattr(self, name)
        if value is None:
            return
        if not above < value < below:
            upper = "" if below == math.inf else f" and below {below:g}"
            raise SettingError(f"{{{name}}} must be above {above:g}{upper}; got {value}")
        setattr(self, name, float(value))


def averaged(
    values: TokenValues,
    batch: RolloutBatch,
    average: str,
    minibatch: RolloutBatch | MinibatchCounts,
    count_epsilon: float,
) -> Float[Tensor, ""]:
    """One number of one per token, normalised by the counts of the whole minibatch."""
    mask = batch.response_mask
    if average == "token":
        return token_mean(
            values, mask, num_tokens=minibatch.num_tokens, count_epsilon=count_epsilon
        )
    return sequence_mean(
        values, mask, num_rollouts=minibatch.num_rollouts, count_epsilon=count_epsilon
    )


def view_needs(view: str, policy: str, quantity: Any) -> Needs:
    """What `look` needs to be there."""
    wanted = frozenset({(view, quantity)})
    return Needs(old=wanted) if policy == "old" else Needs(now=wanted)


def look(
    batch: RolloutBatch, scores: TokenScores, view: str, policy: str, quantity: str = "logprobs"
) -> TokenValues:
    """What a policy says given a view: the one place that decides where gradient flows through a view.

    Args:
        batch: as of `Term.__call__`.
        scores: the same.
        view: by its name; `image` is the unchanged prompt.
        policy: "old": the rollout policy's, scored once per rollout, constant; "current": that of the policy
            that is updated, with gradient; "current_detached": without.
        quantity: a field of ViewScores.
    """
    if policy == "old":
        if view == IMAGE and quantity == "logprobs":
            return batch.old_logprobs
        values: TokenValues | None = getattr(batch.old_views[view], quantity)
    else:
        values = getattr(scores[view], quantity)
    assert values is not None, "the objective reads a term whose needs are met"
    return values.detach() if policy == "current_detached" else values
