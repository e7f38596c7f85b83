"""The audit of what a policy grounds, in an evaluation's folder: grounding.jsonl, then one row and one page."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from papo.evaluation.response_scorer import Reference, ResponseScorer, ScoredProblem, ScoringPolicy
from papo.evaluation.scored_folder import Scoring
from papo.evaluation.vision.grounding import measure_grounding
from papo.evaluation.vision.grounding_report import write_grounding
from papo.evaluation.vision.scored_views import BLANK, ViewDrops, drops_of, without_evidence
from papo.storage.responses import read_responses
from papo.types import IMAGE, ImageMask, PromptGroup
from papo.views import Item, View, changed_fraction


class GroundingAudit(Scoring):
    """How much of what a policy gets right it saw; what the numbers are stands in `papo.evaluation.grounding_measures`.

    Args:
        views: sampled beside the picture, and scored: those in which there is nothing of it to see.
        evidence: hides what a question is about, where the data say where it is.
        control: hides as much elsewhere.
        num_controls: how often, at places of their own.
        num_problems: as of `ResponseScorer`, and so are the other keywords but the last.
        num_responses: the same.
        references: the same.
        tokens_per_pass: the same.
        seed: the same.
        noise_floor: as of `measure_grounding`.

    Raises:
        ValueError: an impossible setting.
    """

    name = "audit"
    file = "grounding.jsonl"

    def __init__(
        self,
        *,
        views: Mapping[str, View],
        evidence: ImageMask,
        control: ImageMask,
        num_controls: int,
        num_problems: int | None,
        num_responses: int,
        references: Reference | None,
        tokens_per_pass: int,
        seed: int,
        noise_floor: float | None,
    ) -> None:
        if num_controls < 1:
            raise ValueError(
                f"evidence is compared with at least one control; got {num_controls}. Set audit.num_controls."
            )
        if noise_floor is not None and not noise_floor < 0:
            raise ValueError(
                "a log-probability is negative, so a floor of it that is not would leave nothing; got "
                f"{noise_floor}. Set audit.noise_floor, or null for none."
            )
        super().__init__(
            ResponseScorer(
                num_problems=num_problems,
                num_responses=num_responses,
                references=references,
                tokens_per_pass=tokens_per_pass,
                seed=seed,
                section="audit",
            )
        )
        self.views = {name: view for name, view in views.items() if view.name != IMAGE}
        self.evidence = evidence
        self.control = control
        self.num_controls = num_controls
        self.noise_floor = noise_floor

    def compares(self, view: str) -> bool:
        return view == BLANK

    def kept(
        self, policy: ScoringPolicy, benchmark: str, scored: ScoredProblem
    ) -> tuple[ViewDrops, ...]:
        return drops_of(policy, benchmark, scored)

    def show(self, item: Item, policy: ScoringPolicy) -> dict[str, PromptGroup]:
        """A view that changes nothing of a problem is left out of it: its drop would be a 0 that says nothing."""
        found = {
            view.name: prompt
            for view in self.views.values()
            for prompt in view(item, policy, num_responses=1)
        } | without_evidence(
            item,
            policy,
            evidence=self.evidence,
            control=self.control,
            num_controls=self.num_controls,
        )
        group = item.encoded(policy)
        return {name: prompt for name, prompt in found.items() if changed_fraction(group, [prompt])}

    def summarize(self, lines: Iterable[str], folder: Path, *, bootstrap_seed: int) -> None:
        """Writes grounding.json, grounding.csv and grounding.html of what was graded and scored."""
        found = measure_grounding(
            read_responses(folder),
            map(ViewDrops.from_line, lines),
            noise_floor=self.noise_floor,
            bootstrap_seed=bootstrap_seed,
        )
        write_grounding(found, folder)
