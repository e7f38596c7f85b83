"""What an evaluation writes down: one JSON line per response, and the verdicts in it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

StopReason = Literal["end", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedAnswer:
    """What a grader made of one response.

    Attributes:
        answer: the final answer it read; None where it found none.
        correct: the verdict that counts.
        verdicts: what each grader said, by its name ("correct", "wrong", "timeout", "crash"; the lab
            names the kind of error instead of "wrong").
    """

    answer: str | None
    correct: bool
    verdicts: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseRecord:
    """One graded response of an evaluation; one line of responses.jsonl.

    Attributes:
        benchmark: key of the benchmark, e.g. "geo3k".
        problem_id: `Problem.id`, stable within the benchmark.
        view: what was shown: "image", or "blank", "removed", "swapped", "masked_0.6" (mask ratio).
        response_index: 0 to num_responses - 1, within problem and view.
        seed: of the problem's draws; the same in every view, so views are paired.
        response: the decoded text.
        reference: the reference answer.
        answer, correct, verdicts: see `GradedAnswer`.
        num_tokens: sampled tokens, the end-of-turn token included.
        stop_reason: "end" where the response ended by itself, "length" where the limit cut it.
        engine: "server" or, where it was away, "local"; None, and not in the line, where no server is asked.
    """

    benchmark: str
    problem_id: str
    view: str
    response_index: int
    seed: int
    response: str
    reference: str
    answer: str | None
    correct: bool
    verdicts: Mapping[str, str]
    num_tokens: int
    stop_reason: StopReason
    engine: str | None = None

    def to_line(self) -> str:
        """Returns the record as one line of JSON, newline included."""
        values = asdict(self)
        if self.engine is None:
            del values["engine"]
        return json.dumps(values, ensure_ascii=True) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "ResponseRecord":
        """Reads `to_line` back.

        Raises:
            ValueError: the line is not a JSON object with exactly these fields.
        """
        try:
            values: Any = json.loads(line)
            return cls(**values)
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"not a response record: {error}; got {line[:200]!r}") from error
