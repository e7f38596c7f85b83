"""The curves that are shown beside a verdict on collapse: what moves when a policy hacks the perception KL.

They are looked at, not judged: a sound policy moves some of them too. What decides is
`papo.statistics.judge_collapse`.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Watched:
    """A curve.

    Attributes:
        column: of metrics.csv.
        unit: of its values; empty where its name says it.
    """

    column: str
    unit: str = ""


WATCHED: Mapping[str, Watched] = {
    "perception KL": Watched("loss/perception_kl", "nats per token"),
    "variance of the perception KL over tokens": Watched("policy/perception_kl_variance"),
    "entropy": Watched("policy/sampled_entropy", "nats per token"),
    "masked entropy": Watched("policy/sampled_masked_entropy", "nats per token"),
    "clipped above": Watched("policy/clip_fraction_high", "share of tokens"),
    "gradient norm": Watched("update/grad_norm"),
    "format errors": Watched("reward/error_format", "share of responses"),
}
"""By the name that tables and charts give it."""
