r"""Three ways to say whether an answer equals a reference. Imported by grading workers only.

Each takes what stood in the box and the reference, and returns a bool. Importing this module
installs the guard that keeps sympy from evaluating text (`sympy_guard`). They have no deadline of
their own: a worker process has (`grading_worker`).
"""

import logging
import re
from collections.abc import Callable

from papo.rewards import answer_equality, sympy_guard
from papo.rewards.grader_names import GRADER_NAMES

sympy_guard.install()

import math_verify as math_verify_package  # noqa: E402
from mathruler.grader import grade_answer  # noqa: E402

# Both would remind every process that their own time-out, which cannot stop C code, is off.
logging.getLogger("math_verify").setLevel(logging.CRITICAL)
logging.getLogger("latex2sympy2_extended").setLevel(logging.CRITICAL)


def mathruler(answer: str, reference: str) -> bool:
    """True if mathruler 0.1.0 `grade_answer` says so, as in the authors' reward.

    Differs only where it must: text that is no arithmetic, and numbers of more than 20,000 bits,
    are not evaluated and so not equal (unless the strings are).
    """
    return bool(grade_answer(answer, reference))


def math_verify(answer: str, reference: str) -> bool:
    r"""True if math-verify finds the two equal, each parsed from a box of its own.

    An unboxed reference `4 \sqrt { 3 }` would be parsed as 3. Percent signs are dropped: with the
    antlr runtime that Hydra needs (4.9) math-verify cannot read them.
    """
    return _math_verify(answer, reference, relations_are_sets=False)


def _math_verify(answer: str, reference: str, *, relations_are_sets: bool) -> bool:
    if sympy_guard.is_unreasonable(answer) or sympy_guard.is_unreasonable(reference):
        return False
    gold, target = (
        # No time-out of its own: it uses SIGALRM, which cannot stop C code. The worker's does.
        math_verify_package.parse(
            r"\boxed{" + re.sub(r"\\?%", "", text) + "}", parsing_timeout=None
        )
        for text in (reference, answer)
    )
    return bool(
        math_verify_package.verify(
            gold, target, timeout_seconds=None, allow_set_relation_comp=relations_are_sets
        )
    )


def combined(answer: str, reference: str) -> bool:
    """True if the two say the same: options, lists, units, names and values, each by its rule.

    Both are read as trees and their values compared exactly. Where they are read but have no value
    that can be computed (sums, integrals), math-verify is asked, as long as both hold the same
    numbers and letters. `docs/graders.md` has the rules.
    """
    answer = answer_equality.without_decimal_comma(answer, reference)
    verdict = answer_equality.same_answer(answer, reference)
    if verdict is not None:
        return verdict
    if answer_equality.leaves(answer) != answer_equality.leaves(reference):
        return False
    return _math_verify(answer, reference, relations_are_sets=True)


GRADERS: dict[str, Callable[[str, str], bool]] = dict(
    zip(GRADER_NAMES, (mathruler, math_verify, combined), strict=True)
)
