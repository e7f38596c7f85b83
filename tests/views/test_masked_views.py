"""A masked view shows what its mask paints; an annealed one what the moment of the run asks for."""

import pytest
import torch
from model_fixtures import problem, tiny_policy

from papo.masking import AnnealedDiffusionNoise, DiffusionNoiseMask, RotationMask
from papo.types import AnnealedMask
from papo.views import Item, MaskedView


@pytest.fixture(scope="module")
def policy():
    return tiny_policy()


def item(progress=0.0, seed=7):
    one = problem()
    return Item(
        benchmark="training", problems=[one], index=0, problem=one, seed=seed, progress=progress
    )


def annealed():
    return AnnealedDiffusionNoise(
        initial_step=500, decay="sigmoid", steepness=10.0, middle=0.5, seed=0
    )


def test_an_annealed_view_shows_the_noise_of_its_moment(policy):
    view = MaskedView(mask=annealed())
    assert view.depends_on_progress
    assert not MaskedView(mask=RotationMask(degrees=10.0, seed=0)).depends_on_progress
    for progress, step in ((0.0, 496), (0.5, 250), (1.0, 3)):
        plain = MaskedView(mask=DiffusionNoiseMask(noise_step=step, seed=0))
        (shown,) = view(item(progress), policy, num_responses=2)
        (expected,) = plain(item(), policy, num_responses=2)
        assert torch.equal(shown.patches, expected.patches)


def test_each_response_may_have_noise_of_its_own(policy):
    shown = MaskedView(mask=annealed(), per="response")(item(0.5), policy, num_responses=3)
    assert len({tuple(one.patches.flatten()[:50].tolist()) for one in shown}) == 3


def test_no_mask_of_a_moment_is_taken_for_an_annealed_one():
    """The view tells them apart by the method `at`."""
    import papo.masking

    named = [getattr(papo.masking, name) for name in papo.masking.__all__]
    classes = [one for one in named if isinstance(one, type)]
    assert [one.__name__ for one in classes if issubclass(one, AnnealedMask)] == [
        "AnnealedDiffusionNoise"
    ]


def test_a_view_that_may_leave_a_picture_says_so():
    mask = RotationMask(degrees=10.0, seed=0)
    assert MaskedView(mask=mask).hides
    assert not MaskedView(mask=mask, hides=False).hides
