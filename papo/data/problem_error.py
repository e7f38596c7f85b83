"""What is wrong with a single problem."""

from papo.types import shown


class ProblemError(ValueError):
    """One problem of a data set cannot be used.

    Attributes:
        reason: a short name to count by: broken_image, broken_text, not_text, image_markers,
            empty_question, empty_answer, broken_boxes, cannot_encode, prompt_too_long.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def of(self, problem_id: str, source: str) -> "ProblemError":
        """Returns the same error with the name of the problem before it."""
        return ProblemError(self.reason, f"problem {shown(problem_id)} of {source}: {self}")
