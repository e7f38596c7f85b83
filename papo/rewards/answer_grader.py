"""Every grader's verdict on the final answers of an evaluation; a named one decides."""

from collections.abc import Sequence

from papo.rewards.extraction import READ_ANSWER, close_up_tags, is_gradable
from papo.rewards.grader_names import GRADER_NAMES
from papo.rewards.grading_pool import Grading, GradingPool, Verdict
from papo.types import GradedAnswer, Problem


class AnswerGrader:
    r"""Reads the last box of a response, as `MathReward` does, and asks all graders about it.

    With `grader="mathruler"`, `correct` is what PAPO-Eval counts (its `eval_utils.py`): white space
    around `<`, `>` and `/` dropped, the last box, mathruler. Grading happens in worker processes
    that are killed at the deadline; workers start on the first call, and `close` ends them.

    Args:
        grader: whose verdict is `correct`: mathruler, math_verify or combined.
        deadline_seconds: processor time one grading may take.
        num_workers: grading processes.

    Raises:
        ValueError: an unknown grader, no worker, no time.
    """

    def __init__(self, *, grader: str, deadline_seconds: float, num_workers: int) -> None:
        if grader not in GRADER_NAMES:
            raise ValueError(
                f"the grader is one of {', '.join(GRADER_NAMES)}; got {grader!r}. "
                "Set benchmark.grader."
            )
        self._grader = grader
        self._pool = GradingPool(
            num_workers=num_workers, deadline_seconds=deadline_seconds, section="benchmark"
        )

    def __call__(
        self, problems: Sequence[Problem], texts: Sequence[str]
    ) -> tuple[GradedAnswer, ...]:
        """Returns what all graders say of one response per problem, in their order.

        `answer` is what the deciding grader read; a missing, empty or overlong one is wrong unasked.

        Raises:
            ValueError: there are not as many texts as problems.
        """
        if len(problems) != len(texts):
            raise ValueError(
                f"grading needs one response per problem; got {len(problems)} problems and "
                f"{len(texts)} responses"
            )
        answers = [
            {name: read(closed_up) for name, read in READ_ANSWER.items()}
            for closed_up in map(close_up_tags, texts)
        ]
        verdict_of = self._pool.grade_once(
            Grading(name, answer, problem.answer)
            for problem, read in zip(problems, answers, strict=True)
            for name, answer in read.items()
            if is_gradable(answer)
        )
        graded = []
        for problem, read in zip(problems, answers, strict=True):
            verdicts = {
                name: verdict_of.get(Grading(name, answer or "", problem.answer), Verdict.WRONG)
                for name, answer in read.items()
            }
            graded.append(
                GradedAnswer(
                    answer=read[self._grader],
                    correct=verdicts[self._grader] is Verdict.CORRECT,
                    verdicts={name: verdict.value for name, verdict in verdicts.items()},
                )
            )
        return tuple(graded)

    def close(self) -> None:
        """Ends the workers; the next call starts new ones."""
        self._pool.close()
