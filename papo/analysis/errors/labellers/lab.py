"""Labels of PerceptionLab's responses: exact, since the drawn scene is known."""

from collections.abc import Mapping, Sequence

from papo.analysis.errors.taxonomy import Case, ErrorCategory, ErrorLabel, Exclusion, label_case
from papo.lab import Category, grade_response, scene_numbers

# papo.lab names the same errors; its two kinds of right answer are never cases.
_CATEGORIES: Mapping[Category, ErrorCategory] = {
    Category.PERCEPTION: ErrorCategory.PERCEPTION,
    Category.REASONING: ErrorCategory.REASONING,
    Category.CALCULATION: ErrorCategory.CALCULATION,
    Category.INCONSISTENT: ErrorCategory.INCONSISTENCY,
    Category.FORMAT: ErrorCategory.FORMAT,
}


class LabLabels:
    """Names the first step of a response that the scene's truth refutes (papo.lab.grading)."""

    name = "lab"

    def can_label(self, case: Case) -> bool:
        """Whether the case shows a scene of the lab."""
        return scene_numbers(case.truth) is not None

    def label(self, cases: Sequence[Case]) -> list[ErrorLabel | Exclusion]:
        """Returns one label per case.

        A response whose recorded verdict is another than the scene's is excluded as
        "contradicts_verdict": then the folder's responses and problems do not belong together.
        """
        return [self._label(case) for case in cases]

    def _label(self, case: Case) -> ErrorLabel | Exclusion:
        numbers = scene_numbers(case.truth)
        assert case.truth is not None, "can_label says which cases come here"
        assert numbers is not None, "can_label says which cases come here"
        found = grade_response(case.truth, case.response).category
        if found not in _CATEGORIES or case.verdicts.get("lab", found) != found:
            return Exclusion(item=case.item, labeller=self.name, reason="contradicts_verdict")
        sides = ", ".join(f"{side} = {number}" for side, number in numbers.items())
        return label_case(
            case,
            _CATEGORIES[found],
            labeller=self.name,
            confidence=1.0,
            evidence=f"the scene has {sides}, {case.truth['operation']} = {case.truth['result']}",
        )
