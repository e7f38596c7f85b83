"""What is kept of one scored response, whatever was asked of it: a line of JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from papo.evaluation.response_scorer import GivenResponse, ScoredProblem, ScoringPolicy

Kept = TypeVar("Kept", bound="ScoredResponse")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredResponse:
    """One response to one problem.

    Attributes:
        benchmark, problem_id: of the problem.
        kind: "own" (sampled by the policy) or "reference".
        response_index: of the own response; 0 for a reference.
        same_length: as of `GivenResponse`.
        tokens: their texts.
    """

    benchmark: str
    problem_id: str
    kind: str
    response_index: int
    same_length: bool | None
    tokens: tuple[str, ...]

    def to_line(self) -> str:
        """Returns it as one line of JSON, newline included."""
        return json.dumps(asdict(self), ensure_ascii=True) + "\n"

    @classmethod
    def from_line(cls: type[Kept], line: str) -> Kept:
        """Reads `to_line` back."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in json.loads(line).items()
        }
        return cls(**values)


def identity(
    policy: ScoringPolicy, benchmark: str, scored: ScoredProblem, response: GivenResponse
) -> dict[str, Any]:
    """Returns the fields of `ScoredResponse`, by their names."""
    tokenizer = policy.encoder.tokenizer
    return {
        "benchmark": benchmark,
        "problem_id": scored.problem_id,
        "kind": response.kind,
        "response_index": response.index,
        "same_length": response.same_length,
        "tokens": tuple(str(tokenizer.decode([one])) for one in response.ids),
    }
