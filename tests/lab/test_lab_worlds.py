"""The second world goes through the front doors like the first, and is not mixed up with it."""

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from papo.commands import front_door
from papo.commands.training.plan import make_plan
from papo.commands.training.preflight import preflight
from papo.lab import PerceptionLabProblems, held_out_set, save_untrained_model, shape_named
from papo.masking import EvidenceControlMask, EvidenceMask
from papo.parallel import Ranks
from papo.types import PictureLayout, PromptGroup


def composed(*overrides):
    with initialize_config_dir(config_dir=front_door.CONFIG_FOLDER, version_base="1.3"):
        return compose("train", overrides=list(overrides))


@pytest.fixture(scope="module")
def quadrilateral_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_untrained_model(folder, seed=1, shape=shape_named("quadrilateral"))
    return folder


def test_the_experiment_trains_on_four_readings_with_a_model_that_knows_them(quadrilateral_model):
    config = composed("+experiment=lab_quadrilateral", f"model.path={quadrilateral_model}")
    plan = make_plan(config)
    preflight(plan, Ranks(), torch.device("cpu"), shards=1)
    assert set("abcd") <= plan.source[0].truth.keys()


def test_the_shipped_policy_is_refused_for_the_other_world():
    plan = make_plan(composed("data.shape=quadrilateral", "rollout.max_response_tokens=44"))
    with pytest.raises(ValueError, match=r"data\.shape=quadrilateral.*warm_start_lab\.py"):
        preflight(plan, Ranks(), torch.device("cpu"), shards=1)


def test_a_policy_of_the_other_world_is_refused_for_the_shipped_one(quadrilateral_model):
    plan = make_plan(composed(f"model.path={quadrilateral_model}"))
    with pytest.raises(ValueError, match=r"data\.shape=rectangle: it does not know"):
        preflight(plan, Ranks(), torch.device("cpu"), shards=1)


def test_responses_that_cannot_be_finished_are_refused_before_anything_is_loaded():
    with pytest.raises(ValueError, match=r"at least 39 tokens.*rollout\.max_response_tokens=24"):
        make_plan(composed("data.shape=quadrilateral"))


def test_an_unknown_shape_names_the_key():
    with pytest.raises(
        ValueError, match=r"rectangle, quadrilateral; got 'circle'. Set data\.shape"
    ):
        make_plan(composed("data.shape=circle"))


def test_the_held_out_sets_of_the_worlds_differ():
    settings = {"zipf_exponent": 1.0, "difficulty": 1.0, "size": 5, "limit": None}
    one, other = (
        held_out_set(name="counter-prior", shape=shape, **settings)
        for shape in ("rectangle", "quadrilateral")
    )
    assert one[0].question != other[0].question
    assert one[0].id != other[0].id


def whiteness(images):
    """A picture as its own patches, 1 per pixel."""
    return torch.tensor(np.asarray(images[0].convert("L"), dtype=np.float32)).reshape(1, -1)


def test_evidence_hides_four_boxes_and_its_control_finds_room_elsewhere():
    problems = PerceptionLabProblems(
        seed=1, prior="uniform", zipf_exponent=1.0, difficulty=1.0, size=100, shape="quadrilateral"
    )
    for index, problem in enumerate(problems):
        group = PromptGroup(
            problem=problem,
            prompt_ids=torch.zeros(1, dtype=torch.long),
            position_ids=torch.zeros(3, 1, dtype=torch.long),
            next_position=1,
            patches=whiteness(problem.images),
            pictures=(PictureLayout(rows=1, columns=1, token_side=1),),
        )
        boxes = problem.truth["boxes"].values()
        area = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
        generator = torch.Generator().manual_seed(index)
        hidden = EvidenceMask()(group, generator, whiteness) != group.patches
        control = EvidenceControlMask(seed=0)(group, generator, whiteness) != group.patches
        # No pixel of a board is black, so every hidden one differs.
        assert hidden.sum() == control.sum() == area
        assert not (hidden & control).any()


def test_a_world_whose_starting_policy_was_not_made_names_the_command_that_makes_it():
    plan = make_plan(composed("+experiment=lab_quadrilateral", "model.path=nowhere/start"))
    with pytest.raises(FileNotFoundError) as error:
        preflight(plan, Ranks(), torch.device("cpu"), shards=1)
    made = "python scripts/warm_start_lab.py --output nowhere/start --shape quadrilateral"
    assert made in str(error.value)
