"""What is wrong with a single problem."""


class ProblemError(ValueError):
    """One problem of a data set cannot be used.

    Attributes:
        reason: a short name to count by: broken_image, image_markers, empty_question, empty_answer.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
