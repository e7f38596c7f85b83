"""What can be wrong with a response, and the words all labellers share."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


class ErrorCategory(StrEnum):
    """What became of a response: right, or the *earliest* error that makes its answer wrong.

    The first four errors are those of the PAPO paper (arXiv:2507.06448v5, section 2.2); the last
    three hold what fits none of them, so that nobody is forced to guess.
    """

    CORRECT = "correct"
    PERCEPTION = "perception"
    REASONING = "reasoning"
    CALCULATION = "calculation"
    INCONSISTENCY = "inconsistency"
    FORMAT = "format"
    LABEL_ERROR = "label_error"
    OTHER = "other"


ERROR_CATEGORIES = tuple(c for c in ErrorCategory if c is not ErrorCategory.CORRECT)
"""What a labeller of a wrong response chooses from."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a category means, with one example."""

    meaning: str
    example: str


DEFINITIONS: Mapping[ErrorCategory, Definition] = {
    ErrorCategory.PERCEPTION: Definition(
        "A number, label, relation or object of the picture is misread, overlooked or invented.",
        "The picture labels side AB with 5 and side AC with 8; the response writes AC = 5.",
    ),
    ErrorCategory.REASONING: Definition(
        "What was read is right, but a rule, a theorem or the plan is wrong.",
        "The response adds the legs of a right triangle to get the hypotenuse.",
    ),
    ErrorCategory.CALCULATION: Definition(
        "The readings and the plan are right, but arithmetic or algebra is carried out wrongly.",
        "The response writes 7 * 8 = 54.",
    ),
    ErrorCategory.INCONSISTENCY: Definition(
        "The steps arrive at one answer, and the final answer states another.",
        "The response derives x = 12 and ends with \\boxed{21}.",
    ),
    ErrorCategory.FORMAT: Definition(
        "There is no final answer to grade: none was given, or the response was cut off.",
        "The response stops in the middle of a sentence.",
    ),
    ErrorCategory.LABEL_ERROR: Definition(
        "The response is right, and the reference answer or the problem itself is wrong.",
        "The picture shows 3 cubes, the response says 3, and the reference says 4.",
    ),
    ErrorCategory.OTHER: Definition(
        "None of these, or it cannot be told which.",
        "The response is gibberish.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One response as a labeller sees it.

    Attributes:
        item: opaque id, the same for every labeller; says nothing of the run.
        run: name of the run it belongs to; labellers must not look at it.
        benchmark, problem_id, response_index: which response it is.
        question: the problem's text, with `<image>` markers.
        reference: the reference answer.
        response: what the model wrote; hostile text.
        answer: the final answer a grader read in it, or None.
        was_cut: whether the length limit ended it.
        verdicts: what the graders said.
        truth: what is known of the picture, or None.
        images: files of the pictures.
    """

    item: str
    run: str
    benchmark: str
    problem_id: str
    response_index: int
    question: str
    reference: str
    response: str
    answer: str | None
    was_cut: bool
    verdicts: Mapping[str, str]
    truth: Mapping[str, Any] | None
    images: tuple[Path, ...]

    @property
    def has_no_answer(self) -> bool:
        """Whether there is nothing to grade, which needs no labeller: a format error."""
        return self.was_cut or self.answer is None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorLabel:
    """What one labeller says of one wrong response; one line of labels.jsonl.

    Attributes:
        item, run, benchmark, problem_id, response_index: see `Case`.
        category: one of `ERROR_CATEGORIES`.
        labeller: who says so: "lab", "geometry", "judge:MODEL", "human:NAME".
        confidence: between 0 and 1 as the labeller states it; None where it states none.
        evidence: why, in words.
        quote: the words of the response where it goes wrong; may be empty.
        seconds: time a person took.
    """

    item: str
    run: str
    benchmark: str
    problem_id: str
    response_index: int
    category: ErrorCategory
    labeller: str
    confidence: float | None = None
    evidence: str = ""
    quote: str = ""
    seconds: float | None = None

    def to_line(self) -> str:
        """Returns the label as one line of JSON, newline included."""
        return json.dumps(asdict(self), ensure_ascii=True) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A response a labeller gave no label to; counted, by reason, and never silently dropped.

    Attributes:
        item: see `Case`.
        labeller: who gave none.
        reason: a short name, e.g. "refusal", "malformed_reply", "unknown_category", "timeout".
        detail: what a server said, shortened; may be empty.
    """

    item: str
    labeller: str
    reason: str
    detail: str = ""


@runtime_checkable
class Labeller(Protocol):
    """Says what is wrong with wrong responses."""

    @property
    def name(self) -> str:
        """Who labels, as labels.jsonl names it."""
        ...

    def can_label(self, case: Case) -> bool:
        """Whether the case carries what this labeller needs to know."""
        ...

    def label(self, cases: Sequence[Case]) -> list[ErrorLabel | Exclusion]:
        """Returns one verdict per case, in their order."""
        ...


def label_case(
    case: Case,
    category: ErrorCategory,
    *,
    labeller: str,
    confidence: float | None = None,
    evidence: str = "",
    quote: str = "",
    seconds: float | None = None,
) -> ErrorLabel:
    """Returns the label of a case; the case says which response it is."""
    return ErrorLabel(
        item=case.item,
        run=case.run,
        benchmark=case.benchmark,
        problem_id=case.problem_id,
        response_index=case.response_index,
        category=category,
        labeller=labeller,
        confidence=confidence,
        evidence=evidence,
        quote=quote,
        seconds=seconds,
    )
