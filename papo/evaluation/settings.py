"""The numbers of an evaluation, checked before anything is loaded."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator

from papo.storage.published import published_results
from papo.types.settings import Count, CountFrom0, Section, section_settings


class EvaluationSettings(Section):
    """The keys of `evaluation.` in conf/evaluate.yaml.

    Attributes:
        tokens_per_batch: rows times (longest prompt + longest response) of one call of the sampler;
            bounds memory. A problem is never cut, whatever its size.
        pass_at: the k of pass@k.
        bootstrap_seed: of the resampling behind every interval.
        published: rows of Table 1 to show beside the results, by their name in papo/storage/published.yaml.
        picture_side: pictures are kept with at most so many pixels a side.
    """

    tokens_per_batch: Count
    pass_at: tuple[Count, ...] = Field(
        strict=False, description="{key} is a list of whole numbers of at least 1; got {got}"
    )
    bootstrap_seed: CountFrom0
    published: tuple[str, ...] = Field(
        strict=False, description="{key} is a list of names; got {got}"
    )
    picture_side: Count

    @field_validator("published")
    @classmethod
    def _are_published(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in published_rows()]:
            raise ValueError(
                f"papo/storage/published.yaml has no row {unknown[0]!r}; known: {', '.join(published_rows())}. "
                "Set evaluation.published."
            )
        return names

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
    """Returns the settings of an `evaluation` section of the configuration; see `section_settings`."""
    return section_settings(
        EvaluationSettings, section, name="evaluation", file="conf/evaluate.yaml"
    )


def published_rows() -> dict[str, Any]:
    """Rows of Table 1 by their name: `scores` in the order of `published_columns`, per cent."""
    return {name: row for name, row in published_results()["main"].items() if name != "columns"}


def published_columns() -> tuple[str, ...]:
    """The nine benchmarks of Table 1: five of the general group, then four of the vision group."""
    return tuple(published_results()["main"]["columns"])
