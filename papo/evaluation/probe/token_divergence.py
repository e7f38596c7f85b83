"""The perception KL of a response, token by token, as perception_kl.jsonl keeps it."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDivergence:
    """The perception KL of one response; one line of perception_kl.jsonl.

    Attributes:
        benchmark, problem_id: of the problem.
        kind: "own" (sampled by the policy) or "reference".
        response_index: of the own response; 0 for a reference.
        same_length: whether the text, made into tokens again, has as many as were sampled; None for
            a reference.
        tokens: their texts.
        kl_k3, kl_exact: per token, nats, mean over the masks.
    """

    benchmark: str
    problem_id: str
    kind: str
    response_index: int
    same_length: bool | None
    tokens: tuple[str, ...]
    kl_k3: tuple[float, ...]
    kl_exact: tuple[float, ...]

    def to_line(self) -> str:
        """Returns it as one line of JSON, newline included."""
        return json.dumps(asdict(self), ensure_ascii=True) + "\n"

    @classmethod
    def from_line(cls, line: str) -> "TokenDivergence":
        """Reads `to_line` back."""
        values = json.loads(line)
        lists = {name: tuple(values[name]) for name in ("tokens", "kl_k3", "kl_exact")}
        return cls(**{**values, **lists})
