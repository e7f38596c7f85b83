"""The evidence mask hides exactly the labels; the control hides as much, and none of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from papo.lab import PerceptionLabProblems
from papo.lab.model import WARM_START
from papo.masking import BlankMask, EvidenceControlMask, EvidenceMask, check_mask
from papo.masking.evidence import evidence_boxes
from papo.types import PictureLayout, Problem, PromptGroup


@pytest.fixture(scope="module")
def problems():
    source = PerceptionLabProblems(
        seed=5, prior="training", zipf_exponent=1.0, difficulty=1.0, size=200
    )
    return [source[index] for index in range(60)]


def pixels_after(mask, problem, seed=0):
    """What a mask makes of the picture, by a processor that hands the pixels through."""

    def process_images(images):
        return (
            torch.tensor(np.stack([np.asarray(image.convert("RGB")) for image in images]))
            .reshape(-1, 3)[:, :]
            .float()
        )

    group = PromptGroup(
        problem=problem,
        prompt_ids=torch.zeros(1, dtype=torch.long),
        position_ids=torch.zeros(3, 1, dtype=torch.long),
        next_position=1,
        patches=process_images(problem.images),
        pictures=(PictureLayout(rows=1, columns=1, token_side=1),),
    )
    masked = mask(group, torch.Generator().manual_seed(seed), process_images)
    return masked.reshape(*np.asarray(problem.images[0]).shape).numpy()


def inside(box, shape):
    left, top, right, bottom = box
    cells = np.zeros(shape, dtype=bool)
    cells[top:bottom, left:right] = True
    return cells


def with_boxes(boxes):
    return Problem(
        id="p",
        question="<image>q",
        answer="1",
        images=(Image.new("RGB", (100, 50)),),
        source="s",
        truth={"boxes": boxes},
    )


def test_a_box_without_a_pixel_of_the_picture_hides_nothing():
    # Rows of one Parquet table have the same names; a name that a row lacks is None there.
    boxes = {"a": (90, 40, 120, 60), "b": None, "beyond": (500, 0, 600, 10), "empty": (5, 5, 5, 9)}
    assert evidence_boxes(with_boxes(boxes)) == ((90, 40, 100, 50),)
    with pytest.raises(ValueError, match="1 pictures and 1 boxes, 0 of them"):
        evidence_boxes(with_boxes({"beyond": (500, 0, 600, 10), "b": None}))


@pytest.mark.parametrize("box", [(1, 2, 3), (1.5, 2, 3, 4), "1234", 7])
def test_what_is_no_box_is_refused_by_name(box):
    with pytest.raises(ValueError, match=r"'p' of 's'.*masking=random"):
        evidence_boxes(with_boxes({"a": box}))


def test_hides_exactly_the_boxes_of_the_labels(problems):
    for problem in problems:
        before = np.asarray(problem.images[0])
        after = pixels_after(EvidenceMask(), problem)
        labels = sum(inside(box, before.shape[:2]) for box in problem.truth["boxes"].values()) > 0
        assert (after[labels] == 0).all()
        assert (after[~labels] == before[~labels]).all()


def test_nothing_of_the_labels_is_left_on_a_clean_drawing():
    """The box of the truth holds all ink of its number: nothing but board and rectangle remains."""
    source = PerceptionLabProblems(
        seed=1, prior="uniform", zipf_exponent=1.0, difficulty=0.0, size=30
    )
    for problem in source:
        after = pixels_after(EvidenceMask(), problem)[:, :, 0]
        board = np.bincount(after.astype(int).ravel()).argmax()
        ink = (after > board + 20) & ~inside((6, 6, 37, 37), after.shape)
        assert not ink.any()


def test_the_control_hides_as_many_pixels_and_none_of_the_labels(problems):
    for problem in problems:
        # Black before would not count as hidden.
        bright = replace(problem, images=(Image.new("RGB", problem.images[0].size, "white"),))
        evidence = pixels_after(EvidenceMask(), bright)[:, :, 0] == 0
        control = pixels_after(EvidenceControlMask(seed=0), bright)[:, :, 0] == 0
        assert control.sum() == evidence.sum()
        assert not (control & evidence).any()


@pytest.mark.parametrize(
    "boxes", [[(0, 0, 40, 10), (20, 5, 60, 15), (0, 0, 40, 10)], [(5, 5, 30, 30), (10, 10, 20, 20)]]
)
def test_a_pixel_in_two_boxes_counts_once(boxes):
    one = with_boxes(dict(enumerate(boxes)))
    bright = replace(one, images=(Image.new("RGB", (100, 50), "white"),))
    evidence = pixels_after(EvidenceMask(), bright)[:, :, 0] == 0
    control = pixels_after(EvidenceControlMask(seed=0), bright)[:, :, 0] == 0
    assert control.sum() == evidence.sum()
    assert not (control & evidence).any()


def test_the_control_draws_from_its_generator_alone(problems):
    mask = EvidenceControlMask(seed=0)
    first = pixels_after(mask, problems[0], seed=1)
    torch.manual_seed(3)
    assert (pixels_after(mask, problems[0], seed=1) == first).all()
    others = [pixels_after(mask, problems[0], seed=seed) for seed in range(2, 8)]
    assert any((other != first).any() for other in others)


def test_the_control_reaches_every_free_place():
    # A 1 x 1 label in the corner of 2 x 2 pixels leaves three places, all equally likely.
    picture = Image.new("RGB", (2, 2), "white")
    problem = Problem(
        id="p", question="<image>", answer="1", images=(picture,), source="t",
        truth={"boxes": {"a": (0, 0, 1, 1)}},
    )  # fmt: skip
    counts = np.zeros((2, 2))
    for seed in range(300):
        counts += pixels_after(EvidenceControlMask(seed=0), problem, seed)[:, :, 0] == 0
    assert counts[0, 0] == 0
    # Binomial(300, 1/3): 100 +- 4 * 8.2
    assert (abs(counts.ravel()[1:] - 100) < 33).all()


def test_no_room_for_a_control_is_said():
    problem = Problem(
        id="p", question="<image>", answer="1", images=(Image.new("RGB", (4, 4)),), source="t",
        truth={"boxes": {"a": (0, 0, 4, 3)}},
    )  # fmt: skip
    with pytest.raises(ValueError, match="no room"):
        pixels_after(EvidenceControlMask(seed=0), problem)


@pytest.mark.parametrize("truth", [None, {}, {"boxes": {}}, {"boxes": "ab"}, {"facts": ["AB = 3"]}])
def test_a_problem_whose_evidence_is_unknown_is_refused(truth):
    problem = Problem(
        id="p", question="<image>", answer="1", images=(Image.new("RGB", (4, 4)),), source="t",
        truth=truth,
    )  # fmt: skip
    for mask in (EvidenceMask(), EvidenceControlMask(seed=0)):
        with pytest.raises(ValueError, match="masking=random"):
            pixels_after(mask, problem)


def test_the_first_problems_tell_whether_evidence_is_known(problems):
    unknown = replace(problems[3], truth=None)
    text_only = replace(unknown, images=())
    for mask in (EvidenceMask(), EvidenceControlMask(seed=0)):
        check_mask(mask, problems, remedy="views=image")
        check_mask(mask, [text_only, *problems], remedy="views=image")
        with pytest.raises(ValueError, match="masking=random"):
            check_mask(mask, [text_only, *problems[:3], unknown], remedy="views=image")


def test_a_mask_that_needs_no_knowledge_reads_no_problem():
    class Unread(list):
        def __getitem__(self, index):
            raise AssertionError("read")

    check_mask(BlankMask(), Unread([0]), remedy="views=image")


def test_boxes_end_at_the_edge_of_the_picture():
    problem = Problem(
        id="p", question="<image>", answer="1", images=(Image.new("RGB", (9, 5)),), source="t",
        truth={"boxes": {"a": (-2, 1, 4, 8)}},
    )  # fmt: skip
    assert evidence_boxes(problem) == ((0, 1, 4, 5),)


def test_the_policy_of_the_lab_reads_the_masked_pictures(problems):
    """The masks fit the lab's processor: patches of the same shape, changed only where they hide."""
    from papo.models import load_policy

    policy = load_policy(
        path=str(WARM_START), hub_id=None, revision=None, dtype="float32",
        attn_implementation="sdpa", min_pixels=None, max_pixels=None, gradient_checkpointing=False,
        freeze_vision=False, temperature=1.0, scoring="auto", head_chunk_size=4096,
        trust_remote_code=False,
    )  # fmt: skip
    group = policy.encode(problems[:1])[0]
    for mask in (EvidenceMask(), EvidenceControlMask(seed=0)):
        masked = mask(group, torch.Generator().manual_seed(0), policy.process_images)
        changed = (masked != group.patches).any(dim=1)
        assert masked.shape == group.patches.shape
        assert 0 < changed.sum() < len(changed)
