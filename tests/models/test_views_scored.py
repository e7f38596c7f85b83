"""Several views in one call: each costs one pass, and what the head compares is what each says alone."""

from dataclasses import replace

import pytest
import torch
from model_fixtures import mixed_problems, tiny_policy

NUM_RESPONSES = 2


def shown_in_two_ways(policy):
    """Prompts with a darker view, one for all responses, and a noised one, another for each response."""
    generator = torch.Generator().manual_seed(0)

    def noised(group):
        noise = torch.randn(group.patches.shape, generator=generator)
        return replace(group, patches=group.patches + 0.5 * noise)

    return tuple(
        group
        if group.patches is None
        else replace(
            group,
            views={
                "darker": (replace(group, patches=group.patches - 1.0),),
                "noised": tuple(noised(group) for _ in range(NUM_RESPONSES)),
            },
        )
        for group in policy.encode(mixed_problems())
    )


def responses(groups):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 200, (len(groups) * NUM_RESPONSES, 4), generator=generator)
    return ids, torch.arange(4) < torch.tensor([4, 2, 3, 4, 1, 4])[:, None]


@pytest.mark.parametrize("full_vocabulary", [False, True])
def test_views_that_are_read_together_say_what_each_says_alone(family, full_vocabulary):
    policy = tiny_policy(family)
    groups = shown_in_two_ways(policy)
    ids, mask = responses(groups)
    names = ("image", "darker", "noised")
    with torch.no_grad():
        together = policy.score(groups, ids, mask, views=names, full_vocabulary=full_vocabulary)
        assert tuple(together) == names
        for name in names:
            [(_, alone)] = policy.score(groups, ids, mask, views=(name,)).items()
            torch.testing.assert_close(together[name].logprobs, alone.logprobs, rtol=0, atol=1e-6)
        for name in names[1:]:
            pair = policy.score(groups, ids, mask, views=("image", name), full_vocabulary=True)
            assert (together[name].kl_from_image is not None) == full_vocabulary
            if full_vocabulary:
                torch.testing.assert_close(
                    together[name].kl_from_image, pair[name].kl_from_image, rtol=0, atol=1e-6
                )
                assert float(together[name].kl_from_image.max()) > 1e-4
    assert together["image"].kl_from_image is None
    assert (together["image"].entropy is not None) == full_vocabulary


def test_a_view_per_response_shows_each_its_own():
    policy = tiny_policy()
    groups = shown_in_two_ways(policy)
    ids, mask = responses(groups)
    with torch.no_grad():
        noised = policy.score(groups, ids, mask, views=("noised",))["noised"].logprobs
        for row in range(ids.shape[0]):
            group = groups[row // NUM_RESPONSES]
            shown = group.shown_in("noised")
            own = shown[row % NUM_RESPONSES] if len(shown) > 1 else shown[0]
            alone = policy.score([own], ids[row : row + 1], mask[row : row + 1])["image"].logprobs
            torch.testing.assert_close(noised[row : row + 1], alone, rtol=0, atol=1e-5)


def test_each_view_costs_one_pass_and_an_unwanted_one_none():
    policy = tiny_policy()
    groups = shown_in_two_ways(policy)
    ids, mask = responses(groups)
    passes = []
    policy.model.model.language_model.register_forward_hook(lambda *_: passes.append(1))
    for views in (("image",), ("darker",), ("image", "darker", "noised")):
        passes.clear()
        policy.score(groups, ids, mask, views=views, full_vocabulary=len(views) > 1)
        assert len(passes) == len(views)
