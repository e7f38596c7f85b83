"""Whether a mask can hide anything of these problems, asked before a model is loaded."""

from papo.types import ImageMask, ProblemSource

PROBLEMS_LOOKED_AT = 16


def check_mask(mask: ImageMask, problems: ProblemSource) -> None:
    """Returns when a mask fits the first few problems that have a picture.

    Only masks that must know something of the picture have a `check_problem`; for any other, no
    problem is read.

    Raises:
        ValueError: the mask's own, naming the problem and the key that fixes it.
    """
    check = getattr(mask, "check_problem", None)
    if check is None:
        return
    for index in range(min(PROBLEMS_LOOKED_AT, len(problems))):
        try:
            problem = problems[index]
        except ValueError:
            continue  # what cannot be read is left out and counted when it is needed
        if problem.images:
            check(problem)
