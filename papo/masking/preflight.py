"""Whether a mask can hide anything of these problems, asked before a model is loaded."""

from papo.types import ImageMask, ProblemSource, key_in

PROBLEMS_LOOKED_AT = 16


def check_mask(mask: ImageMask, problems: ProblemSource, *, remedy: str) -> None:
    """Returns when there is a picture, and the mask fits the first few problems that have one.

    Pictures are counted where the problems say what they hold (`census`); that reads their table, or
    downloads it. Only masks that must know something of the picture have a `check_problem`; for any
    other, no problem is read.

    Args:
        mask: hides pictures.
        problems: that it is to hide the pictures of.
        remedy: see `require_pictures`.

    Raises:
        ValueError: no problem has a picture; or the mask's own, naming the problem and the key that fixes it.
    """
    census = getattr(problems, "census", None)
    if census is not None:
        require_pictures(census.with_pictures, problems, remedy=remedy)
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


def require_pictures(num_pictured: int, problems: ProblemSource, *, remedy: str) -> None:
    """Returns when at least one problem has a picture; without, full and masked view are the same.

    Args:
        num_pictured: how many problems have one.
        problems: all of them.
        remedy: what does without a masked view, a setting of the command.

    Raises:
        ValueError: none has.
    """
    if num_pictured > 0:
        return
    column = ""
    if hasattr(problems, "images_column"):
        key = key_in(getattr(problems, "section", "data"), "images_column")
        column = f"Set {key}= to the column of the pictures; it is {problems.images_column}. "
    raise ValueError(
        f"a masked view hides part of the picture, and none of the {len(problems)} problems has a picture that "
        f"is read: the perception KL would be 0 and say nothing. {column}Without a masked view: {remedy}"
    )
