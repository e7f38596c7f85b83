"""The learning rate over a run: a warm-up, then constant, linear or cosine.

It is a function of the number of an update alone, so a resumed run goes on with the rate of the uninterrupted one.
"""

import math
from dataclasses import dataclass

DECAYS = ("none", "linear", "cosine")


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningRateSchedule:
    """What share of `optimizer.lr` an update is made with.

    With w warm-up updates of n, update u (from 0) has the share (u + 1) / w before w; after that, with
    x = (u - w) / (n - w), none: 1; linear: 1 - (1 - f) x; cosine: f + (1 - f) (1 + cos(pi x)) / 2
    (Loshchilov & Hutter, arXiv:1608.03983v5, Eq. 5, without restarts).

    Attributes:
        decay: none, linear or cosine.
        warmup_updates: w; the first of them has the share 1 / w, the last one 1.
        final_share: f, where the decay would be one update after the last; not read without a decay.

    Raises:
        ValueError: an unknown decay or an impossible number.
    """

    decay: str
    warmup_updates: int
    final_share: float

    def __post_init__(self) -> None:
        if self.decay not in DECAYS:
            raise ValueError(
                f"the learning rate decays in one of {', '.join(DECAYS)}; got schedule.decay={self.decay!r}"
            )
        if isinstance(self.warmup_updates, bool) or self.warmup_updates < 0:
            raise ValueError(
                f"a warm-up has 0 or more updates; got schedule.warmup_updates={self.warmup_updates!r}"
            )
        if not 0 <= self.final_share <= 1:
            raise ValueError(
                "the learning rate ends with a share of optimizer.lr between 0 and 1; got schedule.final_share="
                f"{self.final_share}"
            )

    @property
    def depends_on_length(self) -> bool:
        """Whether a longer run has other rates from its start on."""
        return self.decay != "none"

    def check_length(self, num_updates: int) -> None:
        """Raises ValueError where the run would end before its rate has risen."""
        if self.warmup_updates > num_updates:
            raise ValueError(
                f"the run has {num_updates} updates, and the learning rate rises for schedule.warmup_updates="
                f"{self.warmup_updates} of them. Lower it, or raise training.num_rollouts."
            )

    def share(self, update: int, num_updates: int) -> float:
        """Returns the share of an update, between 0 and 1.

        Args:
            update: updates that were made before.
            num_updates: of the whole run.
        """
        if update < self.warmup_updates:
            return (update + 1) / self.warmup_updates
        if self.decay == "none":
            return 1.0
        done = (update - self.warmup_updates) / (num_updates - self.warmup_updates)
        left = 1 - done if self.decay == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.final_share + (1 - self.final_share) * left


CONSTANT = LearningRateSchedule(decay="none", warmup_updates=0, final_share=1.0)
