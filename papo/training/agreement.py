"""How far the engine that drew the tokens is from the policy that learns from them."""

from dataclasses import dataclass

from papo.parallel import Ranks
from papo.types import Responses, RolloutBatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Over all response tokens of a rollout, on all ranks; docs/metrics.md has the formulas.

    Attributes:
        difference_mean, difference_max: of |log p_old - log p_engine|, nats.
        ratio_mean, ratio_min, ratio_max: of p_old / p_engine.
        local: share of the responses that the policy sampled itself, because a server was away.
    """

    difference_mean: float
    difference_max: float
    ratio_mean: float
    ratio_min: float
    ratio_max: float
    local: float

    def metrics(self) -> dict[str, float]:
        """By their names in metrics.csv."""
        return {
            "rollout/logprob_difference_mean": self.difference_mean,
            "rollout/logprob_difference_max": self.difference_max,
            "rollout/ratio_mean": self.ratio_mean,
            "rollout/ratio_min": self.ratio_min,
            "rollout/ratio_max": self.ratio_max,
            "rollout/local": self.local,
        }


def measure_agreement(batch: RolloutBatch, responses: Responses, ranks: Ranks) -> Agreement | None:
    """Compares what the engine said with what the policy says. Collective.

    Args:
        batch: of this rank, scored.
        responses: of all ranks.
        ranks: the processes of the run.

    Returns:
        None where the engine is the policy itself.
    """
    if batch.behaviour_logprobs is None or responses.from_server is None:
        return None
    difference = (batch.old_logprobs - batch.behaviour_logprobs)[batch.response_mask].double()
    ratio = difference.exp()
    parts = ranks.gather(
        [
            [difference.numel(), float(difference.abs().sum()), float(ratio.sum())],
            [float(difference.abs().max()), float(ratio.min()), float(ratio.max())],
        ]
    )
    count, total_difference, total_ratio = (
        sum(sums[place] for sums, _ in parts) for place in range(3)
    )
    return Agreement(
        difference_mean=total_difference / count,
        difference_max=max(extremes[0] for _, extremes in parts),
        ratio_mean=total_ratio / count,
        ratio_min=min(extremes[1] for _, extremes in parts),
        ratio_max=max(extremes[2] for _, extremes in parts),
        local=1.0 - float(responses.from_server.double().mean()),
    )
