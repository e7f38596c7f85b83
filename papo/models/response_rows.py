"""Which prompts and views a pass reads, and where the values of response tokens stand."""

from collections.abc import Sequence

from jaxtyping import Bool, Shaped
from torch import Tensor

from papo.types import IMAGE, PromptGroup


def at_tokens(
    values: Shaped[Tensor, " row"], response_mask: Bool[Tensor, "rollout token"]
) -> Shaped[Tensor, "rollout token"]:
    """Returns values of the response tokens, in row-major order, at their places; exactly 0 at padding."""
    mask = response_mask.to(values.device)
    return values.new_zeros(mask.shape).masked_scatter(mask, values)


def shown_in(view: str, groups: Sequence[PromptGroup], num_responses: int) -> Sequence[PromptGroup]:
    """The prompts of a view: one for each group, or one for each response where any group has so many."""
    shown = [group.shown_in(view) for group in groups]
    if all(len(prompts) == 1 for prompts in shown):
        return [prompt for (prompt,) in shown]
    return [
        prompt
        for prompts in shown
        for prompt in (prompts * num_responses if len(prompts) == 1 else prompts)
    ]


def read_together(views: Sequence[str], *, full_vocabulary: bool) -> list[tuple[str, str | None]]:
    """Which views the head reads at once: the image with each that it is compared with."""
    first, *others = views
    if first != IMAGE or not others:
        return [(view, None) for view in views]
    if full_vocabulary:
        return [(first, other) for other in others]
    return [(first, others[0]), *((other, None) for other in others[1:])]


def check_rows(groups: Sequence[PromptGroup], response_mask: Bool[Tensor, "rollout token"]) -> None:
    """Raises ValueError where rows are not whole groups, or a response has a gap."""
    if not groups or response_mask.shape[0] % len(groups):
        raise ValueError(
            f"score needs whole groups; got {response_mask.shape[0]} responses for {len(groups)} groups"
        )
    if bool((response_mask[:, 1:] & ~response_mask[:, :-1]).any()):
        raise ValueError(
            "a response is contiguous and starts at its first position, padding only behind it; "
            "got a response_mask with a gap"
        )
