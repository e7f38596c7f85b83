"""The numbers of an evaluation, checked before anything is loaded."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from papo.storage.published import published_results


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """The keys of `evaluation.` in conf/evaluate.yaml.

    Attributes:
        tokens_per_batch: rows times (longest prompt + longest response) of one call of the sampler;
            bounds memory. A problem is never cut, whatever its size.
        pass_at: the k of pass@k.
        bootstrap_seed: of the resampling behind every interval.
        published: rows of Table 1 to show beside the results, by their name in papo/storage/published.yaml.
        picture_side: pictures are kept with at most so many pixels a side.
    """

    tokens_per_batch: int
    pass_at: tuple[int, ...]
    bootstrap_seed: int
    published: tuple[str, ...]
    picture_side: int

    def check_pass_at(self, num_responses: int) -> None:
        """Refuses a pass@k that asks for more responses than there are.

        Raises:
            ValueError: names both numbers and their keys.
        """
        if self.pass_at and max(self.pass_at) > num_responses:
            raise ValueError(
                f"pass@{max(self.pass_at)} needs as many responses to a problem; got "
                f"rollout.num_responses={num_responses}. Set evaluation.pass_at or rollout.num_responses."
            )


def check_num_responses(num_responses: object) -> int:
    """Returns k, the responses to each problem.

    Raises:
        ValueError: not a whole number of at least 1.
    """
    if isinstance(num_responses, bool) or not isinstance(num_responses, int) or num_responses < 1:
        raise ValueError(
            f"every problem has at least one response; got {num_responses!r}. Set rollout.num_responses."
        )
    return num_responses


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
    for name in ("pass_at", "published"):
        if not isinstance(section[name], list | tuple):
            raise ValueError(f"evaluation.{name} is a list; got {section[name]!r}")
    for name in section["published"]:
        if name not in published_rows():
            raise ValueError(
                f"papo/storage/published.yaml has no row {name!r}; known: {', '.join(published_rows())}. "
                "Set evaluation.published."
            )
    return EvaluationSettings(
        tokens_per_batch=_whole("tokens_per_batch", section["tokens_per_batch"], at_least=1),
        pass_at=tuple(_whole("pass_at", k, at_least=1) for k in section["pass_at"]),
        bootstrap_seed=_whole("bootstrap_seed", section["bootstrap_seed"], at_least=0),
        published=tuple(section["published"]),
        picture_side=_whole("picture_side", section["picture_side"], at_least=1),
    )


def published_rows() -> dict[str, Any]:
    """Rows of Table 1 by their name: `scores` in the order of `published_columns`, per cent."""
    return {name: row for name, row in published_results()["main"].items() if name != "columns"}


def published_columns() -> tuple[str, ...]:
    """The nine benchmarks of Table 1: five of the general group, then four of the vision group."""
    return tuple(published_results()["main"]["columns"])


def _whole(name: str, value: object, *, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(
            f"evaluation.{name} is a whole number of at least {at_least}; got {value!r}"
        )
    return value
