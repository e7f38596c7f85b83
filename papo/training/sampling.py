"""Responses of a group that were sampled from other views of its prompt."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch

from papo.training.draft import concatenate_responses, select_responses
from papo.types import PromptGroup, Responses, RolloutEngine, derive_seed


def check_sampled_from(
    shares: Mapping[str, float], views: Collection[str], *, num_responses: int
) -> dict[str, int]:
    """Returns how many of the responses to a prompt are sampled from each view.

    Args:
        shares: of the responses, by the name of the view.
        views: that there are.
        num_responses: G.

    Raises:
        ValueError: a view is not there, a share is no whole number of responses, or nothing is left for the image.
    """
    counts = {}
    for view, share in shares.items():
        key = f"objective.sampled_from.{view}"
        if view not in views:
            raise ValueError(
                f"{key} samples from a view; got {', '.join(sorted(views)) or 'none'}. Set objective.views.{view}."
            )
        count = round(share * num_responses, 9)
        if not 0 < count < num_responses or count != int(count):
            raise ValueError(
                f"{key}={share} of rollout.num_responses={num_responses} is a whole number of responses, at least one "
                f"and not all; got {count:g}. Set rollout.num_responses or {key}."
            )
        counts[view] = int(count)
    if sum(counts.values()) >= num_responses:
        raise ValueError(
            "at least one response is sampled from the image; got objective.sampled_from="
            f"{dict(shares)} of rollout.num_responses={num_responses}"
        )
    return counts


def sample_from(
    engine: RolloutEngine,
    groups: Sequence[PromptGroup],
    num_responses: int,
    seeds: Sequence[int],
    *,
    counts: Mapping[str, int],
) -> Responses:
    """Returns the responses to each prompt: those to the image first, then those to views by name.

    What the policy said of a token when it drew it is kept as `behaviour_logprobs`: whoever trains the responses on
    the image scores them again. Seeds of views are derived from those of the prompts.

    Args:
        engine: samples.
        groups: prompts, with their views.
        num_responses: G.
        seeds: one per group.
        counts: of G, by view.

    Raises:
        ValueError: a view shows each response something else.
    """
    from_image = num_responses - sum(counts.values())
    parts, sizes = [engine.sample(groups, from_image, seeds)], [from_image]
    for view, count in sorted(counts.items()):
        shown = [group.shown_in(view) for group in groups]
        if any(len(prompts) != 1 for prompts in shown):
            raise ValueError(
                f"responses are sampled from one prompt per view; got one per response. Set objective.views.{view}.per=prompt."
            )
        own_seeds = [derive_seed(seed, "view", view) for seed in seeds]
        parts.append(engine.sample([prompt for [prompt] in shown], count, own_seeds))
        sizes.append(count)
    together = concatenate_responses(parts)
    # Rows of the parts, each with its groups one after another, as rows of groups.
    places = torch.arange(together.mask.shape[0]).split([len(groups) * size for size in sizes])
    rows = torch.cat(
        [rows.reshape(len(groups), size) for rows, size in zip(places, sizes, strict=True)], dim=1
    )
    return replace(
        select_responses(together, rows.flatten()),
        behaviour_logprobs=together.logprobs[rows.flatten()],
    )
