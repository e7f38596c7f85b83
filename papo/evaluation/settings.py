"""The numbers of an evaluation, checked before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from papo.published import published_results


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """The keys of `evaluation.` in conf/evaluate.yaml.

    Attributes:
        tokens_per_batch: rows times (longest prompt + longest response) of one call of the sampler;
            bounds memory. A problem is never cut, whatever its size.
        pass_at: the k of pass@k.
        bootstrap_seed: of the resampling behind every interval.
        published: rows of Table 1 to show beside the results, by their name in papo/published.yaml.
        picture_side: pictures are kept with at most so many pixels a side.

    Raises:
        ValueError: an impossible setting, with its key.
    """

    tokens_per_batch: int
    pass_at: tuple[int, ...]
    bootstrap_seed: int
    published: tuple[str, ...]
    picture_side: int

    def __post_init__(self) -> None:
        for name in ("tokens_per_batch", "picture_side"):
            _whole(f"evaluation.{name}", getattr(self, name), at_least=1)
        _whole("evaluation.bootstrap_seed", self.bootstrap_seed, at_least=0)
        for k in self.pass_at:
            _whole("evaluation.pass_at", k, at_least=1)
        for name in self.published:
            if name not in published_rows():
                raise ValueError(
                    f"papo/published.yaml has no row {name!r}; known: {', '.join(published_rows())}. "
                    "Set evaluation.published."
                )

    def check_responses(self, num_responses: object) -> int:
        """Returns k, the responses per problem.

        Raises:
            ValueError: k is no count, or pass@k asks for more responses than there are.
        """
        k = _whole("rollout.num_responses", num_responses, at_least=1)
        if self.pass_at and max(self.pass_at) > k:
            raise ValueError(
                f"pass@{max(self.pass_at)} needs as many responses to a problem; got "
                f"rollout.num_responses={k}. Set evaluation.pass_at or rollout.num_responses."
            )
        return k


def evaluation_settings(section: Mapping[str, Any]) -> EvaluationSettings:
    """Returns the settings of an `evaluation` section of the configuration.

    Raises:
        ValueError: an unknown, missing or impossible setting; names its key.
    """
    known = {field.name for field in fields(EvaluationSettings)}
    for name in section:
        if name not in known:
            raise ValueError(f"unknown key evaluation.{name}; known: {', '.join(sorted(known))}")
    if missing := sorted(known - set(section)):
        raise ValueError(f"evaluation.{missing[0]} is not set; set it in conf/evaluate.yaml")
    lists = {name: section[name] for name in ("pass_at", "published")}
    for name, value in lists.items():
        if not isinstance(value, list | tuple):
            raise ValueError(f"evaluation.{name} is a list; got {value!r}")
    return EvaluationSettings(
        **{**section, **{name: tuple(value) for name, value in lists.items()}}
    )


def published_rows() -> dict[str, Any]:
    """Rows of Table 1 by their name: `scores` in the order of `published_columns`, per cent."""
    return {name: row for name, row in published_results()["main"].items() if name != "columns"}


def published_columns() -> tuple[str, ...]:
    """The nine benchmarks of Table 1: five of the general group, then four of the vision group."""
    return tuple(published_results()["main"]["columns"])


def _whole(name: str, value: object, *, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{name} is a whole number of at least {at_least}; got {value!r}. Set it.")
    return value
