"""The lab's exact grading as an evaluation reads it."""

from collections.abc import Sequence

from papo.lab.grading import grade_responses
from papo.types import GradedAnswer, Problem

_BOX = "\\boxed{"


class LabGrader:
    """Says of responses to drawn scenes which are right, and names the error of the others.

    `verdicts` is {"lab": category}, see `papo.lab.Category`; luck counts as right, as in the reward.
    Nothing runs in another process: grading is a regular expression on bounded text.
    """

    def __call__(
        self, problems: Sequence[Problem], texts: Sequence[str]
    ) -> tuple[GradedAnswer, ...]:
        """Returns what became of one response per problem, in their order.

        `answer` is what stands in the last box, also where the rest of the response is of no
        grammar; None without a box.

        Raises:
            ValueError: the lengths differ, or a problem is not a PerceptionLab scene.
        """
        return tuple(
            GradedAnswer(
                answer=_boxed(text),
                correct=grade.answer_right,
                verdicts={"lab": grade.category.value},
            )
            for grade, text in zip(grade_responses(problems, texts), texts, strict=True)
        )


def _boxed(text: str) -> str | None:
    _, box, rest = text.rpartition(_BOX)
    answer, closing, _ = rest.partition("}")
    return answer.strip() if box and closing else None
