"""Which words depend on the picture: the perception KL of every token of given responses.

For every token o_t of a response, KL(pi(. | q, I, o_<t) || pi(. | q, I_mask, o_<t)) over the whole
vocabulary, and the k3 estimate that training uses, k3 = r - 1 - log r with r = q(o_t) / p(o_t)
(arXiv:2507.06448v5, section 3), each the mean over a bank of seeded masks. k3 estimates the KL for
tokens that the policy drew itself; on fixed references it only says what training would see.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from torch import Tensor

from papo.evaluation.probe.report import summarize_probe, write_probe_summary
from papo.evaluation.probe.token_divergence import TokenDivergence
from papo.evaluation.response_scorer import (
    Reference,
    ResponseScorer,
    ScoredProblem,
    ScoringPolicy,
)
from papo.evaluation.scored_folder import Scoring
from papo.evaluation.scored_response import identity
from papo.evaluation.token_weights import rounded
from papo.functional import kl_k3
from papo.types import IMAGE, ImageMask, PromptGroup
from papo.views import MASKED, Item, hide, mask_seed


class PerceptionProbe(Scoring):
    """Scores responses against the picture and against a bank of masked pictures.

    Args:
        mask: hides part of the picture; a mask of ratio R uses the masks of the view masked_R.
        num_masks: size of the bank.
        num_problems: as of `ResponseScorer`, and so are the others.

    Raises:
        ValueError: an impossible setting.
    """

    def __init__(
        self,
        *,
        mask: ImageMask,
        num_masks: int,
        num_problems: int | None,
        num_responses: int,
        references: Reference | None,
        tokens_per_pass: int,
        seed: int,
    ) -> None:
        if isinstance(mask, partial):
            raise ValueError(
                "the probe needs a mask that is complete by itself; got one that wants the policy. Set "
                "masking=random or masking=blank."
            )
        if num_masks < 1:
            raise ValueError(f"the probe needs at least one mask; got {num_masks}. Set num_masks.")
        super().__init__(
            ResponseScorer(
                num_problems=num_problems,
                num_responses=num_responses,
                references=references,
                tokens_per_pass=tokens_per_pass,
                seed=seed,
                section="probe",
            )
        )
        self.mask = mask
        self.num_masks = num_masks

    name = "probe"
    file = "perception_kl.jsonl"

    def summarize(self, lines: Iterable[str], folder: Path, *, bootstrap_seed: int) -> None:
        """Writes the summary of what was scored into an evaluation's folder."""
        scored = map(TokenDivergence.from_line, lines)
        write_probe_summary(summarize_probe(scored, bootstrap_seed=bootstrap_seed), folder)

    def show(self, item: Item, policy: ScoringPolicy) -> dict[str, PromptGroup]:
        group = item.encoded(policy)
        return {
            f"{MASKED}_{index}": hide(
                group, self.mask, policy, seed=mask_seed(item.seed, self.mask, index)
            )
            for index in range(self.num_masks)
        }

    def kept(
        self, policy: ScoringPolicy, benchmark: str, scored: ScoredProblem
    ) -> tuple[TokenDivergence, ...]:
        image = scored.logprobs[IMAGE]
        # float64, since r overflows float32 where the masked view all but excludes the other's token.
        k3 = sum(
            kl_k3(image, masked, log_ratio_max=None)
            for view, masked in scored.logprobs.items()
            if view != IMAGE
        )
        exact = sum(scored.kl.values())
        # A bank has a mask, so neither is the plain 0 of no sum.
        assert isinstance(k3, Tensor)
        assert isinstance(exact, Tensor)
        return tuple(
            TokenDivergence(
                **identity(policy, benchmark, scored, response),
                kl_k3=rounded(k3[row, : len(response.ids)] / self.num_masks),
                kl_exact=rounded(exact[row, : len(response.ids)] / self.num_masks),
            )
            for row, response in enumerate(scored.responses)
        )
