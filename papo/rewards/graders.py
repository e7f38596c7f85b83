r"""Three ways to say whether an answer equals a reference. Imported by grading workers only.

Each takes what stood in the box and the reference, and returns a bool. Importing this module
installs the guard that keeps sympy from evaluating text (`sympy_guard`). They have no deadline of
their own: a worker process has (`grading_worker`).
"""

import logging
import re
from collections.abc import Callable

from papo.rewards import canonical, sympy_guard
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
    """True if the answers agree once both are spelled alike, or mathruler or math-verify says so.

    Letters of options, lists, units and names of quantities are compared by rule, because there
    the two graders are known to accept too much or too little. `docs/graders.md` has the rules.
    """
    given, truth = canonical.canonicalise(answer), canonical.canonicalise(reference)
    if not given or not truth:
        return False
    if canonical.plain(given) == canonical.plain(truth):
        return True
    if re.fullmatch(r"[A-J]", truth):
        return canonical.choice_letter(given) == truth
    if canonical.is_letter_list(truth):
        return canonical.choice_letters(given) == canonical.choice_letters(truth)
    given = _without_decimal_comma(given, truth)
    givens, truths = canonical.split_list(given), canonical.split_list(truth)
    if len(givens) > 1 and len(truths) > 1:
        return _same_members(givens, truths)
    return _same_value(given, truth)


def _without_decimal_comma(given: str, truth: str) -> str:
    """0,5 is 0.5 only beside a reference that is a decimal number; else it may be a list."""
    if re.fullmatch(r"-?\d+,\d+", given) and re.fullmatch(r"-?\d+\.\d+", truth):
        return given.replace(",", ".")
    return given


_MAX_MEMBERS = 12


def _same_members(givens: list[str], truths: list[str]) -> bool:
    if len(givens) != len(truths) or len(truths) > _MAX_MEMBERS:
        return False
    left = list(givens)
    for truth in truths:
        match = next((given for given in left if _same_value(given, truth)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _same_value(given: str, truth: str) -> bool:
    given_name, given_value = canonical.split_assignment(given)
    truth_name, truth_value = canonical.split_assignment(truth)
    if given_name and truth_name and _names_differ(given_name, truth_name):
        return False
    if given_name and truth_name is None and "=" not in truth:
        given = given_value
    elif truth_name and given_name is None and "=" not in given:
        truth = truth_value
    elif given_name and truth_name:
        given, truth = given_value, truth_value
    elif "=" in given and "=" not in truth:
        given = canonical.last_side(given)
    given_number, given_unit = canonical.split_unit(given)
    truth_number, truth_unit = canonical.split_unit(truth)
    if given_unit and truth_unit and given_unit != truth_unit:
        return False
    if _equal_expressions(given_number, truth_number):
        return True
    # 50% is 50 by the dropped sign (above) and 0.5 by its meaning (here).
    if given_unit == "percent" and truth_unit is None:
        return _equal_expressions(rf"\frac{{{given_number}}}{{100}}", truth_number)
    if truth_unit == "percent" and given_unit is None:
        return _equal_expressions(given_number, rf"\frac{{{truth_number}}}{{100}}")
    return False


def _names_differ(given: str, truth: str) -> bool:
    """x is not y. But y is f(x), and an angle may be read from either end."""
    if "(" in given or "(" in truth:
        return False
    given, truth = (re.sub(r"\\?angle|\\|^m(?=\\)|[{}]", "", name) for name in (given, truth))
    return given not in (truth, truth[::-1])


_BRACKETED = re.compile(r"([\[(]).*,.*([\])])", re.DOTALL)


def _equal_expressions(given: str, truth: str) -> bool:
    if not given or not truth:
        return False
    if canonical.plain(given) == canonical.plain(truth):
        return True
    # math-verify reads a word as a product of its letters and a sentence as the number in it.
    if canonical.has_words(given) or canonical.has_words(truth):
        return False
    given_brackets, truth_brackets = _BRACKETED.fullmatch(given), _BRACKETED.fullmatch(truth)
    if given_brackets and truth_brackets and given_brackets.groups() != truth_brackets.groups():
        return False
    return mathruler(given, truth) or _math_verify(given, truth, relations_are_sets=True)


GRADERS: dict[str, Callable[[str, str], bool]] = dict(
    zip(GRADER_NAMES, (mathruler, math_verify, combined), strict=True)
)
