"""Evidence-RL's margin (arXiv:2608.08021, code evidencerl/code@808a092)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from papo.functional import evidence_gate, evidence_margin, response_means, standardised
from papo.objective import Blocks, Credit, TokenValues
from papo.types import Needs, RolloutBatch


@dataclass(kw_only=True, eq=False)
class EvidenceRL(Credit):
    """Group advantages of R = r gate(m) + weight m: a right answer earns as far as it rests on the evidence.

    m is the margin of what hiding the evidence costs over what hiding as much elsewhere does
    (papo.functional.evidence_margin), in the mean log-prob of a response. r is 0 where no answer is known.

    Args:
        evidence: the view without the evidence.
        controls: views without as much elsewhere; with one, or equal ones, m saturates.
        temperature: of the gate; 0: a step.
        weight: of the margin.
        wrong: r of a wrong answer; a right one has 1.
        epsilon: added to the group's standard deviation.
        routed: False: R = r + weight m, without the gate.
        relative: False: m is a difference, as in the runs that the authors kept.
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
        self.check_number("temperature", "weight", "epsilon")

    @property
    def needs(self) -> Needs:
        return Needs(old=frozenset((v, "logprobs") for v in (self.evidence, *self.controls)))

    def __call__(self, batch: RolloutBatch, blocks: Blocks, *, progress: float) -> TokenValues:
        old, mask = batch.old_logprobs, batch.response_mask
        evidence, *controls = (
            response_means(old - batch.old_views[view].logprobs, mask)
            for view in (self.evidence, *self.controls)
        )
        beside = torch.stack(controls) if controls else evidence.new_zeros(0, len(evidence))
        margin = evidence_margin(evidence, beside, relative=self.relative)
        gate = evidence_gate(margin, self.temperature) if self.routed else 1.0
        verdicts = torch.where(batch.correct, 1.0, self.wrong)
        if batch.known is not None:
            verdicts = verdicts.where(batch.known, 0.0)
        rewards = verdicts * gate + self.weight * margin
        return standardised(rewards, batch.num_responses, epsilon=self.epsilon)[:, None] * mask
