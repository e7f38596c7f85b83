"""Evidence-RL's margin (arXiv:2608.08021, code evidencerl/code@808a092)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from papo.functional import response_means, standardised
from papo.objective import Blocks, Credit, SettingError, view_needs
from papo.objective.term import TokenValues
from papo.types import Needs, RolloutBatch

Responses = Float[Tensor, " rollout"]


@dataclass(kw_only=True, eq=False)
class EvidenceRL(Credit):
    """Group advantages of a reward that a right answer earns as far as it rests on the evidence.

    m = tanh((d_evidence - mean d_control) / (std d_control + 1e-6)), d the drop of the mean log-prob of a response
    where a view hides part of the picture. R = r gate(m) + weight m with gate = (1 + tanh(m / temperature)) / 2.

    Args:
        evidence: the view without the evidence.
        controls: views without as much elsewhere; with one, or equal ones, m saturates; none: m = tanh(d_evidence).
        temperature: of the gate; 0: a step.
        weight: of the margin.
        wrong: r of a wrong answer; a right one has 1.
        epsilon: added to the group's standard deviation.
        routed: False: R = r + weight m, without the gate.
        relative: False: m = d_evidence - mean d_control, as in the runs that the authors kept.

    Raises:
        SettingError: a negative temperature.
    """

    evidence: str
    controls: Sequence[str]
    temperature: float
    weight: float
    wrong: float
    epsilon: float
    routed: bool = True
    relative: bool = True

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise SettingError(f"{{temperature}} is 0 or positive; got {self.temperature}")

    @property
    def needs(self) -> Needs:
        views = frozenset((self.evidence, *self.controls))
        return Needs(old=frozenset().union(*(view_needs(v, "old", "logprobs").old for v in views)))

    def __call__(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> TokenValues:
        drops = {
            view: response_means(batch.old_logprobs - seen.logprobs, batch.response_mask)
            for view, seen in batch.old_views.items()
        }
        margin = self.margin(drops[self.evidence], [drops[view] for view in self.controls])
        rewards = self.reward(torch.where(batch.correct, 1.0, self.wrong).to(margin), margin)
        advantages = standardised(rewards, batch.num_responses, epsilon=self.epsilon)
        return advantages[:, None] * batch.response_mask

    def margin(self, evidence: Responses, controls: Sequence[Responses]) -> Responses:
        """m, from the drops of the mean log-prob."""
        if not controls:
            return evidence.tanh() if self.relative else evidence
        beside = torch.stack(list(controls))
        difference = evidence - beside.mean(0)
        spread = beside.std(0, correction=0) + 1e-6
        return (difference / spread).tanh() if self.relative else difference

    def gate(self, margin: Responses) -> Responses:
        if self.temperature == 0:
            return (margin > 0).to(margin)
        return (1 + (margin / self.temperature).tanh()) / 2

    def reward(self, verdict: Responses, margin: Responses) -> Responses:
        """R, from r and m."""
        return verdict * (self.gate(margin) if self.routed else 1.0) + self.weight * margin
