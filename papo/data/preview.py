"""What would be read of a data set, seen before anything is trained: how many problems, which are left out, how the first looks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from papo.data.census import notes_on
from papo.data.filtering import ProblemFilterReport, Reading
from papo.types import Problem, RewardFunction, shown

_CHUNK = 64
"""Problems that are graded at once; their pictures are in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What was found.

    Attributes:
        rows: problems that were looked at.
        files: names of the files of the table; empty where there are none.
        columns: of the table; empty where there is none.
        read_as: which column is read as what, or what kind of source it is.
        notes: of the census.
        report: what is left out, and why.
        first: the first usable problem.
        graded: how many references were graded against themselves.
        refused: those that the reward does not call right, as (id, reference).
    """

    rows: int
    files: tuple[str, ...]
    columns: tuple[str, ...]
    read_as: str
    notes: tuple[str, ...]
    report: ProblemFilterReport
    first: Problem
    graded: int
    refused: tuple[tuple[str, str], ...]

    def summary(self) -> str:
        """Returns some lines for a terminal."""
        where = f" of {', '.join(self.files)}" if self.files else ""
        lines = [
            f"{self.rows} rows{where}; columns: {shown(', '.join(self.columns), 300) or 'none'}"
        ]
        lines.append(self.read_as)
        lines += [f"note: {note}" for note in self.notes if self.read_as not in note]
        lines += [self.report.summary(), self.grading()]
        lines += [
            f"  not judged right: {shown(id)}: {shown(answer)}" for id, answer in self.refused[:10]
        ]
        return "\n".join(lines)

    def grading(self) -> str:
        """Says how many references the reward calls right when they are the answer."""
        right = self.graded - len(self.refused)
        share = f"{100 * right / self.graded:.1f} %" if self.graded else "none"
        return (
            f"references graded against themselves: {right} of {self.graded} judged right ({share})"
        )


def preview(
    source: Any, *, prompt_length: Callable[[Problem], int], reward: RewardFunction
) -> Preview:
    r"""Reads every problem once, grades each reference as the box of a response, and says what came of it.

    Args:
        source: with a method `usable`.
        prompt_length: exact number of prompt tokens.
        reward: that judges `<think>...</think>\boxed{REFERENCE}`.

    Raises:
        ValueError: the columns are not there, or no problem is usable.
    """
    waiting: list[Problem] = []
    graded, refused = 0, []

    def grade() -> None:
        nonlocal graded
        if waiting:
            verdicts = reward(waiting, [answered(problem.answer) for problem in waiting]).correct
            for problem, right in zip(waiting, verdicts.tolist(), strict=True):
                if not right:
                    refused.append((problem.id, problem.answer))
            graded += len(waiting)
            waiting.clear()

    def measured(problem: Problem) -> int:
        length = prompt_length(problem)
        waiting.append(problem)
        if len(waiting) == _CHUNK:
            grade()
        return length

    notes = notes_on(source)
    kept, report = source.usable(measured, Reading())
    grade()
    columns = getattr(source, "columns", None)
    return Preview(
        rows=len(source),
        files=tuple(file.name for file in getattr(source, "files", ())),
        columns=tuple(getattr(source, "column_names", ())),
        read_as=columns.sentence() if columns else f"problems of {type(source).__name__}",
        notes=notes,
        report=report,
        first=kept[0],
        graded=graded,
        refused=tuple(refused),
    )


def answered(reference: str) -> str:
    """Returns a response of the published form that gives this answer."""
    return f"<think>The picture shows it.</think>\n\\boxed{{{reference}}}"
