"""The reward of the paper: mostly the right answer, a little for showing the work as asked."""

from collections.abc import Sequence

import torch

from papo.rewards.extraction import READ_ANSWER, close_up_tags, is_gradable
from papo.rewards.format_rule import FORMAT_RULES, follows_format
from papo.rewards.grader_names import GRADER_NAMES
from papo.rewards.grading_pool import Grading, GradingPool, Verdict
from papo.types import Problem, Rewards


class MathReward:
    r"""R_i = accuracy_weight * accuracy + format_weight * format, each 0 or 1.

    Accuracy: the last box equals the reference, says the grader (`docs/graders.md`). Format: the
    response matches `<think>.*</think>.*\\boxed\{.*\}.*`. As in the official reward (EasyR1
    `examples/reward_function/math.py`), white space around `<`, `>` and `/` is dropped first.
    Grading happens in worker processes that are killed at the deadline; a grading that runs out of
    time, or ends two workers, is wrong and counted in `Rewards.timeouts`. Workers start on the first call; `close` ends them.

    Args:
        grader: mathruler (the authors' verdicts), math_verify, or combined (what an answer is worth).
        accuracy_weight: published 0.9.
        format_weight: published 0.1.
        deadline_seconds: processor time one grading may take.
        num_workers: grading processes.
        format_rule: think_then_box, or close_think_then_box where the chat template opens `<think>`.

    Raises:
        ValueError: an unknown grader or format rule, a negative weight, no worker, no time.
    """

    def __init__(
        self,
        *,
        grader: str,
        accuracy_weight: float,
        format_weight: float,
        deadline_seconds: float,
        num_workers: int,
        format_rule: str = "think_then_box",
    ) -> None:
        if grader not in GRADER_NAMES:
            raise ValueError(
                f"the grader is one of {', '.join(GRADER_NAMES)}; got {grader!r}. Set reward.grader."
            )
        if format_rule not in FORMAT_RULES:
            raise ValueError(
                f"the format rule is one of {', '.join(FORMAT_RULES)}; got {format_rule!r}. "
                "Set reward.format_rule."
            )
        for name, weight in (
            ("accuracy_weight", accuracy_weight),
            ("format_weight", format_weight),
        ):
            if not 0.0 <= weight < float("inf"):
                raise ValueError(
                    f"a reward weight is not negative and finite; got {name}={weight}. "
                    f"Set reward.{name} (published: accuracy 0.9, format 0.1)."
                )
        self._grader = grader
        self._accuracy_weight = accuracy_weight
        self._format_weight = format_weight
        self._format_rule = format_rule
        self._pool = GradingPool(num_workers=num_workers, deadline_seconds=deadline_seconds)

    def __call__(self, problems: Sequence[Problem], texts: Sequence[str]) -> Rewards:
        """Returns the rewards of one response per problem, in their order.

        Raises:
            ValueError: there are not as many texts as problems.
        """
        if len(problems) != len(texts):
            raise ValueError(
                f"a reward needs one response per problem; got {len(problems)} problems and "
                f"{len(texts)} responses"
            )
        closed_up = [close_up_tags(text) for text in texts]
        verdicts = self._grade(problems, closed_up)
        correct = torch.tensor(
            [verdict is Verdict.CORRECT for verdict in verdicts], dtype=torch.bool
        )
        formatted = torch.tensor(
            [follows_format(text, self._format_rule) for text in closed_up], dtype=torch.float32
        )
        accuracy = correct.to(torch.float32)
        return Rewards(
            total=self._accuracy_weight * accuracy + self._format_weight * formatted,
            correct=correct,
            components={"accuracy": accuracy, "format": formatted},
            timeouts=sum(verdict in (Verdict.TIMEOUT, Verdict.CRASH) for verdict in verdicts),
        )

    def _grade(self, problems: Sequence[Problem], texts: Sequence[str]) -> list[Verdict]:
        gradings = [
            Grading(self._grader, answer, problem.answer) if is_gradable(answer) else None
            for problem, answer in zip(problems, map(READ_ANSWER[self._grader], texts), strict=True)
        ]
        verdict_of = self._pool.grade_once(grading for grading in gradings if grading is not None)
        return [Verdict.WRONG if grading is None else verdict_of[grading] for grading in gradings]

    def close(self) -> None:
        """Ends the workers; the next call starts new ones."""
        self._pool.close()
