"""Unusable problems are left out, counted and named, by one rule for training and evaluation."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from papo.data.problem_error import ProblemError
from papo.data.remembered import Remembered
from papo.types import Problem, ProblemSource, key_in

_EXAMPLES_PER_REASON = 3
_CHUNK = 64  # problems whose images are in memory at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemFilterReport:
    """What the filter saw.

    Attributes:
        seen: problems looked at.
        kept: problems that can be used.
        with_pictures: how many of these have a picture.
        dropped: how many were left out, per reason.
        examples: what was wrong with the first few, per reason.
    """

    seen: int
    kept: int
    with_pictures: int
    dropped: Mapping[str, int]
    examples: Mapping[str, tuple[str, ...]]

    def summary(self) -> str:
        """One line per reason, after a line of totals."""
        lines = [f"kept {self.kept} of {self.seen} problems, {self.with_pictures} with pictures"]
        for reason, count in sorted(self.dropped.items()):
            lines.append(f"  dropped {count} ({reason}), e.g. {'; '.join(self.examples[reason])}")
        return "\n".join(lines)

    @classmethod
    def of_outcome(cls, outcome: Mapping[str, Any]) -> "ProblemFilterReport":
        """Returns what was remembered of a report (`asdict`)."""
        examples = {reason: tuple(shown) for reason, shown in outcome["examples"].items()}
        return cls(**{**outcome, "examples": examples})


Advance = Callable[[str, int], None]
"""Says what is done, and how many problems more were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How all problems are read once.

    Attributes:
        remembered: where the outcome is found or kept; None reads in any case.
        progress: given the number of problems, watches while they are read; not entered where nothing is.
    """

    remembered: Remembered | None = None
    progress: Callable[[int], AbstractContextManager[Advance]] = lambda _: nullcontext(
        lambda *_: None
    )


class FilterableSource(ProblemSource, Protocol):
    """Problems with the settings by which the unusable are left out."""

    max_prompt_tokens: int
    strict: bool
    num_threads: int
    section: str

    def identity(self) -> Mapping[str, Any] | None:
        """What its problems depend on, the state of its files included; None where that cannot be told."""
        ...


def usable_problems(
    source: FilterableSource, prompt_length: Callable[[Problem], int], reading: Reading | None
) -> tuple["FilteredProblems", ProblemFilterReport]:
    """Returns the usable problems of a source and a report, remembered or by `filter_problems`.

    Where the source is `strict`, all are read: an unusable one is to be seen.

    Raises:
        ProblemError, ValueError: as `filter_problems`.
    """
    reading = reading or Reading()
    remembered = None if source.strict else reading.remembered
    identity = source.identity() if remembered else None
    key = remembered.key(identity) if remembered and identity else ""
    if remembered and key and (outcome := remembered.find(key)):
        positions = outcome.pop("positions")
        return FilteredProblems(source, positions), ProblemFilterReport.of_outcome(outcome)
    num_noted = len(remembered.noted) if remembered else 0
    with reading.progress(len(source)) as advance:
        kept, report = filter_problems(
            source,
            prompt_length=prompt_length,
            max_prompt_tokens=source.max_prompt_tokens,
            strict=source.strict,
            section=source.section,
            num_threads=source.num_threads,
            advance=advance,
        )
    if remembered and key:
        outcome = {"positions": kept.positions, **asdict(report)}
        remembered.keep(key, outcome, remembered.noted[num_noted:])
    return kept, report


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCheck:
    """Whether a prompt can be made of a problem that could be read.

    Attributes:
        prompt_length: exact number of prompt tokens, image tokens included; a ValueError of it means
            that the prompt cannot be encoded.
        max_prompt_tokens: the longest prompt that is used; None where any length is.
        section: where that setting stands in the configuration; the message names it.
    """

    prompt_length: Callable[[Problem], int]
    max_prompt_tokens: int | None
    section: str = "data"

    def error(self, problem: Problem) -> ProblemError | None:
        """Returns what keeps the problem from being shown; None where nothing does."""
        try:
            length = self.prompt_length(problem)
        except (ValueError, ArithmeticError) as error:
            found = ProblemError("cannot_encode", str(error))
            return found.of(problem.id, problem.source)
        if self.max_prompt_tokens is None or length <= self.max_prompt_tokens:
            return None
        return ProblemError(
            "prompt_too_long",
            f"{length} prompt tokens, more than "
            f"{key_in(self.section, 'max_prompt_tokens')}={self.max_prompt_tokens}",
        ).of(problem.id, problem.source)


class CheckedProblems:
    """All positions of another source; reading one of which no prompt can be made is an error too.

    Args:
        source: the problems; its settings `max_prompt_tokens`, `strict`, `section` and `prompt_suffix`
            are read where it has them.
        prompt_length: see `PromptCheck`.
    """

    def __init__(self, source: ProblemSource, *, prompt_length: Callable[[Problem], int]) -> None:
        self.source = source
        self.strict = bool(getattr(source, "strict", False))
        self.prompt_suffix = str(getattr(source, "prompt_suffix", ""))
        self._check = PromptCheck(
            prompt_length=prompt_length,
            max_prompt_tokens=getattr(source, "max_prompt_tokens", None),
            section=getattr(source, "section", "data"),
        )

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Problem:
        """Reads one problem.

        Raises:
            ProblemError: it cannot be read, or cannot be shown.
        """
        problem = self.source[index]
        if error := self._check.error(problem):
            raise error
        return problem


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
    section: str = "data",
    advance: Advance = lambda *_: None,
) -> tuple[FilteredProblems, ProblemFilterReport]:
    """Returns the usable problems and a report of the others.

    Left out are problems with a broken image or text, markers that do not fit the images, an empty
    question or answer (see `ProblemTable`), a prompt that cannot be encoded, and a prompt of more than
    `max_prompt_tokens` tokens, images included. Every image is decoded once.

    Args:
        source: the problems.
        prompt_length: see `PromptCheck`.
        max_prompt_tokens: the longest prompt kept.
        strict: raise at the first unusable problem instead of leaving it out.
        num_threads: threads that decode images.
        section: see `PromptCheck`.
        advance: is told of problems that were read.

    Raises:
        ProblemError: `strict`, and a problem is unusable.
        ValueError: no problem is left.
    """
    positions: list[int] = []
    with_pictures = 0
    dropped: dict[str, int] = {}
    examples: dict[str, list[str]] = {}
    check = PromptCheck(
        prompt_length=prompt_length, max_prompt_tokens=max_prompt_tokens, section=section
    )

    def read(position: int) -> Problem | ProblemError:
        try:
            return source[position]
        except ProblemError as error:
            return error

    with ThreadPoolExecutor(max_workers=num_threads) as threads:
        for start in range(0, len(source), _CHUNK):
            chunk = range(start, min(start + _CHUNK, len(source)))
            for position, found in zip(chunk, threads.map(read, chunk), strict=True):
                error = found if isinstance(found, ProblemError) else check.error(found)
                if error is None:
                    positions.append(position)
                    with_pictures += isinstance(found, Problem) and len(found.images) > 0
                    continue
                if strict:
                    raise error
                dropped[error.reason] = dropped.get(error.reason, 0) + 1
                shown = examples.setdefault(error.reason, [])
                if len(shown) < _EXAMPLES_PER_REASON:
                    shown.append(str(error))
            advance("reading problems", len(chunk))
    report = ProblemFilterReport(
        seen=len(source),
        kept=len(positions),
        with_pictures=with_pictures,
        dropped=dropped,
        examples={reason: tuple(shown) for reason, shown in examples.items()},
    )
    if not positions:
        raise ValueError(f"no usable problem is left:\n{report.summary()}")
    return FilteredProblems(source, positions), report
