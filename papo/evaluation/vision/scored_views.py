"""What an audit scores of a policy: given responses, given the picture, none, another's, and without their evidence."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from papo.evaluation.response_scorer import ScoredProblem, ScoringPolicy
from papo.evaluation.scored_response import ScoredResponse, identity
from papo.evaluation.token_weights import rounded
from papo.masking import NoRoom, has_evidence
from papo.types import IMAGE, ImageMask, PromptGroup
from papo.views import Item, hide, mask_seed

BLANK = "blank"
EVIDENCE = "evidence"
CONTROL = "control_"


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewDrops(ScoredResponse):
    """What other views than the picture cost one response; one line of grounding.jsonl.

    Attributes:
        kl: per token, KL(picture || black picture), nats; empty where blackening changes nothing.
        logprob: log p(response | picture), nats, of all its tokens.
        drops: by view, log p(response | picture) - log p(response | view), nats.
    """

    kl: tuple[float, ...]
    logprob: float
    drops: Mapping[str, float]

    @property
    def controls(self) -> list[float]:
        """The drops of the controls."""
        return [drop for view, drop in self.drops.items() if view.startswith(CONTROL)]

    @property
    def lacks_control(self) -> bool:
        """Whether the evidence is known, and there is no room to hide as much elsewhere."""
        return EVIDENCE in self.drops and not self.controls

    @property
    def evidence_margin(self) -> float | None:
        """What hiding the evidence costs beyond hiding as much elsewhere; None where one of the two is not there."""
        if EVIDENCE not in self.drops or not self.controls:
            return None
        return self.drops[EVIDENCE] - sum(self.controls) / len(self.controls)


def without_evidence(
    item: Item, policy: ScoringPolicy, *, evidence: ImageMask, control: ImageMask, num_controls: int
) -> dict[str, PromptGroup]:
    """Returns a problem without its evidence and, so many times, without as much elsewhere.

    Nothing where no box is known, and no control where a picture has no room for one: such a problem is counted, and
    its evidence compared with nothing.

    Raises:
        ValueError: a box is not four whole numbers.
    """
    if not has_evidence(item.problem):
        return {}
    group = item.encoded(policy)
    found = {EVIDENCE: hide(group, evidence, policy, seed=item.seed)}
    seeds = [mask_seed(item.seed, control, index) for index in range(num_controls)]
    with suppress(NoRoom):
        controls = [hide(group, control, policy, seed=seed) for seed in seeds]
        found |= {f"{CONTROL}{index}": one for index, one in enumerate(controls)}
    return found


def drops_of(policy: ScoringPolicy, benchmark: str, scored: ScoredProblem) -> tuple[ViewDrops, ...]:
    """Returns what the other views cost each response to a problem."""
    sums = {view: values.sum(dim=1).tolist() for view, values in scored.logprobs.items()}
    image = sums.pop(IMAGE)
    return tuple(
        ViewDrops(
            **identity(policy, benchmark, scored, response),
            kl=rounded(scored.kl[BLANK][row, : len(response.ids)]) if BLANK in scored.kl else (),
            logprob=float(f"{image[row]:.6g}"),
            # Differences of rounded numbers would be all rounding where a view changes little.
            drops={view: float(f"{image[row] - found[row]:.6g}") for view, found in sums.items()},
        )
        for row, response in enumerate(scored.responses)
    )
