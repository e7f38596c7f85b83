"""What each view shows: which tokens and patches the policy would read, and what is left out."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from model_fixtures import noise_image, problem, tiny_policy
from PIL import Image

from papo.data import ProblemError
from papo.masking import BlankMask, RandomPatchMask
from papo.types import PromptGroup
from papo.views import BlankView, ImageView, Item, MaskBankView, RemovedView, SwappedView, View


@pytest.fixture(scope="module")
def policy():
    return tiny_policy()


def pictured(index, num_images=1, image=None):
    images = tuple(image or noise_image(56, 56, 10 * index + n) for n in range(num_images))
    return problem("<image>" * num_images + " How many?", images=images, id=str(index))


def item(problems, index, seed=5):
    return Item(
        benchmark="some", problems=problems, index=index, problem=problems[index], seed=seed
    )


def masked_view(ratio, num_masks=4, grid="patch", seed=0):
    make = partial(RandomPatchMask, grid=grid, raw_square_pixels=14, seed=seed)
    return MaskBankView(ratio=ratio, num_masks=num_masks, make_mask=make)


def all_views():
    return [
        BlankView(mask=BlankMask()),
        RemovedView(),
        SwappedView(seed=0),
        *(masked_view(ratio) for ratio in (0.2, 0.4, 0.6, 0.8, 1.0)),
    ]


def shown(view, problems, index, policy, num_responses=8):
    return view(item(problems, index), policy, num_responses=num_responses)


class Stub:
    """Reads nothing: shows which problems a view asks about."""

    def encode(self, problems):
        ids, positions = torch.zeros(1, dtype=torch.long), torch.zeros(3, 1, dtype=torch.long)
        return tuple(
            PromptGroup(problem=one, prompt_ids=ids, position_ids=positions, next_position=1)
            for one in problems
        )

    def process_images(self, images):
        raise AssertionError("nothing is processed here")


def test_every_view_is_a_view_and_has_its_own_name():
    views = all_views()
    assert all(isinstance(view, View) for view in views)
    assert [view.name for view in views] == [
        *("blank", "removed", "swapped"),
        *("masked_0.2", "masked_0.4", "masked_0.6", "masked_0.8", "masked_1.0"),
    ]


def test_the_blank_view_has_the_tokens_of_the_image_view_and_black_patches(policy):
    problems = [pictured(0)]
    (plain,) = shown(ImageView(), problems, 0, policy)
    (blank,) = shown(BlankView(mask=BlankMask()), problems, 0, policy)
    black = policy.process_images([Image.new("RGB", (56, 56))])
    assert torch.equal(blank.prompt_ids, plain.prompt_ids)
    assert torch.equal(blank.patches, black)
    assert not torch.equal(plain.patches, black)


def test_the_removed_view_asks_the_same_without_a_trace_of_a_picture(policy):
    (group,) = shown(RemovedView(), [pictured(0)], 0, policy)
    (text,) = policy.encode([problem("How many?", images=())])
    assert group.patches is None
    assert torch.equal(group.prompt_ids, text.prompt_ids)


@pytest.mark.parametrize(
    ("question", "left"),
    [
        ("<image>What is it?", "What is it?"),
        ("<image>\nWhat is it?", "What is it?"),
        ("In <image> and <image>, which?", "In and , which?"),
        ("Look: <image>", "Look:"),
    ],
)
def test_markers_go_with_the_space_around_them(question, left):
    one = problem(question, images=(noise_image(56, 56),) * question.count("<image>"))
    (asked,) = RemovedView()(item([one], 0), Stub(), num_responses=1)
    assert asked.problem.question == left
    assert asked.problem.images == ()


def test_a_question_that_is_all_picture_is_left_out():
    assert shown(RemovedView(), [problem("<image>")], 0, Stub()) == ()


def test_the_prompt_alone_is_no_question():
    class Asked(list):
        prompt_suffix = "Think, then box."

    all_picture, worded = problem(f"<image>\n\n{Asked.prompt_suffix}"), problem("<image>How many?")
    problems = Asked([all_picture, worded])
    assert shown(RemovedView(), problems, 0, Stub()) == ()
    assert shown(RemovedView(), problems, 1, Stub()) != ()


@pytest.mark.parametrize("view", all_views(), ids=lambda view: view.name)
def test_a_text_only_problem_is_left_out_of_every_view_but_the_plain_one(view, policy):
    problems = [problem("No picture.", images=()), pictured(1), pictured(2)]
    assert shown(view, problems, 0, policy) == ()
    assert len(shown(ImageView(), problems, 0, policy)) == 1


@pytest.mark.parametrize("grid", ["raw", "patch", "token"])
def test_a_bank_of_masks_is_fixed_by_the_problems_seed(grid, policy):
    problems, view = [pictured(0)], masked_view(0.6, grid=grid)
    bank = shown(view, problems, 0, policy)
    again = masked_view(0.6, grid=grid)(item(problems, 0), policy, num_responses=8)
    other = view(item(problems, 0, seed=6), policy, num_responses=8)
    reseeded = shown(masked_view(0.6, grid=grid, seed=1), problems, 0, policy)
    assert len(bank) == 4
    assert not all(torch.equal(a.patches, b.patches) for a, b in zip(bank, reseeded, strict=True))
    assert all(torch.equal(a.patches, b.patches) for a, b in zip(bank, again, strict=True))
    assert not all(torch.equal(a.patches, b.patches) for a, b in zip(bank, other, strict=True))
    assert len({group.patches.numpy().tobytes() for group in bank}) > 1


def test_the_masks_are_those_of_the_ratio_and_the_index(policy):
    big = [problem("<image> How many?", images=(noise_image(126, 126),))]
    (plain,) = shown(ImageView(), big, 0, policy)

    def hidden(ratio):
        bank = shown(masked_view(ratio, num_masks=8), big, 0, policy)
        return np.mean([(g.patches != plain.patches).any(dim=1).float().mean() for g in bank])

    assert hidden(1.0) == 1.0
    # 8 masks of 64 patches: a share of 0.6 has a standard deviation of 0.02.
    assert hidden(0.6) == pytest.approx(0.6, abs=0.08)
    assert hidden(0.2) == pytest.approx(0.2, abs=0.08)
    few = shown(masked_view(0.6, num_masks=2), big, 0, policy)
    many = shown(masked_view(0.6, num_masks=4), big, 0, policy)
    assert all(torch.equal(a.patches, b.patches) for a, b in zip(few, many, strict=False))


def test_ratio_one_is_the_blank_view(policy):
    (masked, *_) = shown(masked_view(1.0), [pictured(0)], 0, policy)
    (blank,) = shown(BlankView(mask=BlankMask()), [pictured(0)], 0, policy)
    assert torch.equal(masked.patches, blank.patches)


def test_a_bank_is_no_larger_than_the_responses_that_see_it(policy):
    assert len(shown(masked_view(0.6), [pictured(0)], 0, policy, num_responses=3)) == 3


def test_views_leave_the_problem_as_it_is(policy):
    problems = [pictured(0), pictured(1)]
    before = problems[0].images[0].tobytes()
    for view in all_views():
        shown(view, problems, 0, policy)
    assert problems[0].images[0].tobytes() == before


def swapped_with(problems, index, seed=0):
    view = SwappedView(seed=seed)
    groups = view(item(problems, index), Stub(), num_responses=1)
    return groups[0].problem if groups else None


def owner_of(images, problems):
    return next(i for i, one in enumerate(problems) if one.images == images)


def test_swapping_is_a_derangement_among_items_with_equally_many_pictures():
    counts = [1, 1, 2, 1, 2, 1, 2, 1, 1]
    problems = [pictured(i, count) for i, count in enumerate(counts)]
    view = SwappedView(seed=0)
    partners = []
    for index, one in enumerate(problems):
        (group,) = view(item(problems, index), Stub(), num_responses=1)
        assert group.problem.question == one.question
        assert group.problem.id == one.id
        partners.append(owner_of(group.problem.images, problems))
    assert sorted(partners) == list(range(9))
    assert all(partner != index for index, partner in enumerate(partners))
    assert all(counts[partner] == counts[index] for index, partner in enumerate(partners))


def test_the_partner_is_fixed_by_the_seed_and_independent_of_what_was_asked_before():
    problems = [pictured(i) for i in range(12)]
    view = SwappedView(seed=3)
    in_turn = [
        view(item(problems, i), Stub(), num_responses=1)[0].problem.images for i in range(12)
    ]
    alone = [swapped_with(problems, i, seed=3).images for i in range(12)]
    other = [swapped_with(problems, i, seed=4).images for i in range(12)]
    assert in_turn == alone
    assert in_turn != other


def test_an_item_without_a_partner_is_left_out():
    problems = [pictured(0), pictured(1), pictured(2, num_images=2), problem("text", images=())]
    assert swapped_with(problems, 2) is None
    assert swapped_with(problems, 0) is not None


def test_questions_about_the_same_picture_do_not_lend_it_to_one_another():
    shared = noise_image(56, 56, 99)
    problems = [pictured(i, image=shared.copy()) for i in range(5)] + [pictured(7)]
    assert all(swapped_with(problems, i).images == problems[5].images for i in range(5))
    assert swapped_with(problems[:5], 0) is None


def test_an_item_that_cannot_be_read_lends_nothing():
    class Broken(list):
        def __getitem__(self, index):
            if index == 1:
                raise ProblemError("broken_image", "no such picture")
            return super().__getitem__(index)

    problems = Broken([pictured(0), pictured(1), pictured(2)])
    assert swapped_with(problems, 0).images == problems[2].images


def test_swapped_pictures_are_encoded_with_the_question(policy):
    problems = [pictured(0), replace(pictured(1), images=(noise_image(112, 56, 3),))]
    (group,) = shown(SwappedView(seed=0), problems, 0, policy)
    (expected,) = policy.encode([replace(problems[0], images=problems[1].images)])
    assert torch.equal(group.patches, expected.patches)
    assert torch.equal(group.prompt_ids, expected.prompt_ids)


def test_an_empty_bank_is_refused():
    with pytest.raises(ValueError, match="at least one mask; got 0"):
        masked_view(0.5, num_masks=0)
