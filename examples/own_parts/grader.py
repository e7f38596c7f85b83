"""A grader of one's own, for evaluations: which answer a response gives, and whether it is right."""

import re
from collections.abc import Sequence

from papo.types import GradedAnswer, Problem


class LastNumber:
    """The last number of the response is its answer."""

    def __call__(
        self, problems: Sequence[Problem], texts: Sequence[str]
    ) -> tuple[GradedAnswer, ...]:
        graded = []
        for problem, text in zip(problems, texts, strict=True):
            numbers = re.findall(r"[0-9]{1,20}", text)
            answer = numbers[-1] if numbers else None
            right = answer == problem.answer
            verdict = "correct" if right else "wrong"
            graded.append(
                GradedAnswer(answer=answer, correct=right, verdicts={"last_number": verdict})
            )
        return tuple(graded)
