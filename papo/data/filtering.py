"""One pass over a data set before training: unusable problems are left out, counted and reported."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from papo.data.problem_error import ProblemError
from papo.types import Problem, ProblemSource

_EXAMPLES_PER_REASON = 3
_CHUNK = 64  # problems whose images are in memory at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemFilterReport:
    """What the filter saw.

    Attributes:
        seen: problems looked at.
        kept: problems that can be used.
        dropped: how many were left out, per reason.
        examples: what was wrong with the first few, per reason.
    """

    seen: int
    kept: int
    dropped: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]

    def summary(self) -> str:
        """One line per reason, after a line of totals."""
        lines = [f"kept {self.kept} of {self.seen} problems"]
        for reason, count in sorted(self.dropped.items()):
            lines.append(f"  dropped {count} ({reason}), e.g. {'; '.join(self.examples[reason])}")
        return "\n".join(lines)


class FilteredProblems:
    """The problems at the kept positions of another source, in the same order."""

    def __init__(self, source: ProblemSource, positions: Sequence[int]) -> None:
        self.source = source
        self.positions = tuple(positions)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Problem:
        return self.source[self.positions[index]]


def filter_problems(
    source: ProblemSource,
    *,
    prompt_length: Callable[[Problem], int],
    max_prompt_tokens: int,
    strict: bool,
    num_threads: int,
) -> tuple[FilteredProblems, ProblemFilterReport]:
    """Returns the usable problems and a report of the others.

    Left out are problems with a broken image, markers that do not fit the images, an empty question
    or answer (see `ProblemTable`), a prompt that cannot be encoded, and a prompt of more than
    `max_prompt_tokens` tokens, images included. Every image is decoded once.

    Args:
        source: the problems.
        prompt_length: exact number of prompt tokens, image tokens included; a ValueError of it
            means that the prompt cannot be encoded.
        max_prompt_tokens: the longest prompt kept.
        strict: raise at the first unusable problem instead of leaving it out.
        num_threads: threads that decode images.

    Raises:
        ProblemError: `strict`, and a problem is unusable.
        ValueError: no problem is left.
    """
    positions: list[int] = []
    dropped: dict[str, int] = {}
    examples: dict[str, list[str]] = {}

    def read(position: int) -> Problem | ProblemError:
        try:
            return source[position]
        except ProblemError as error:
            return error

    with ThreadPoolExecutor(max_workers=num_threads) as threads:
        for start in range(0, len(source), _CHUNK):
            chunk = range(start, min(start + _CHUNK, len(source)))
            for position, problem in zip(chunk, threads.map(read, chunk), strict=True):
                error = (
                    problem
                    if isinstance(problem, ProblemError)
                    else _length_error(problem, prompt_length, max_prompt_tokens)
                )
                if error is None:
                    positions.append(position)
                    continue
                if strict:
                    raise error
                dropped[error.reason] = dropped.get(error.reason, 0) + 1
                shown = examples.setdefault(error.reason, [])
                if len(shown) < _EXAMPLES_PER_REASON:
                    shown.append(str(error))
    report = ProblemFilterReport(
        seen=len(source),
        kept=len(positions),
        dropped=dropped,
        examples={reason: tuple(shown) for reason, shown in examples.items()},
    )
    if not positions:
        raise ValueError(f"no usable problem is left:\n{report.summary()}")
    return FilteredProblems(source, positions), report


def _length_error(
    problem: Problem, prompt_length: Callable[[Problem], int], max_prompt_tokens: int
) -> ProblemError | None:
    try:
        length = prompt_length(problem)
    except ValueError as error:
        return ProblemError("cannot_encode", f"problem {problem.id} of {problem.source}: {error}")
    if length > max_prompt_tokens:
        return ProblemError(
            "prompt_too_long",
            f"problem {problem.id} of {problem.source}: {length} prompt tokens, "
            f"more than data.max_prompt_tokens={max_prompt_tokens}",
        )
    return None
