"""Each method with a view or a credit of its own trains the lab's policy, as `python train.py objective=NAME` does."""

import math
from unittest.mock import Mock

import pytest
import torch
from hydra import compose, initialize_config_dir
from lab_module import parameters
from lab_module import train as run_module

from papo.commands import building, front_door
from papo.commands.training.continued import check_length
from papo.commands.training.plan import make_plan
from papo.commands.training.run import make_module
from papo.parallel import NoSharding, Ranks
from papo.training import RunFolder, Start
from papo.training.callbacks import TermGradients

pytestmark = pytest.mark.slow

SMALL = (
    "training.num_rollouts=1",
    *(f"training.prompts_per_{what}=2" for what in ("rollout", "minibatch", "microbatch")),
    "rollout.num_responses=4",
)
# A metric of each that is there only where the method works, and what it says.
ALIVE = {
    "cppo": ("loss/contrast", lambda value: 0.3 < value < 1.5),
    "dvrp": ("loss/robustness", lambda value: value > 0),
    "noisyrollout": ("views/noised_changed", lambda value: value == 1.0),
    "r1_sharevl": ("credit/scale", lambda value: value > 0),
    "perceval": ("credit/scale", lambda value: abs(value - 1) < 0.1),
    "evidence_rl": ("credit/scale", lambda value: value > 0),
    "papo_margin": ("loss/margin", lambda value: -5.01 < value < -0.006),
    "papo_jsd": ("loss/perception_kl", lambda value: 0 < value < math.log(2)),
}


def composed(*overrides):
    with initialize_config_dir(config_dir=front_door.CONFIG_FOLDER, version_base="1.3"):
        return compose("train", overrides=[*SMALL, *overrides])


def module_of(tmp_path, *overrides):
    config = composed(f"run_dir={tmp_path}", *overrides)
    plan = make_plan(config)
    policy = building.instantiate(config.model)
    return make_module(
        plan,
        policy,
        plan.make_engine(policy=policy),
        plan.source,
        Ranks(),
        NoSharding(),
        device=torch.device("cpu"),
        failure_folder=tmp_path / "non_finite",
    )


@pytest.mark.parametrize("name", ALIVE)
def test_it_trains(name, tmp_path):
    module = module_of(tmp_path, f"objective={name}")
    before = parameters(module.policy_module.policy)
    # What it does is no accident of its terms: nothing of it is accused of doing nothing.
    measuring = TermGradients(every_updates=1, prompts=2, on_fault="stop")
    after = run_module(module, tmp_path, measuring)
    metrics = module.last_step.metrics
    metric, says = ALIVE[name]
    assert says(metrics[metric]), metrics[metric]
    run = {name: each for name, each in metrics.items() if not name.startswith("gradient/")}
    assert all(map(math.isfinite, run.values()))
    assert metrics["update/grad_norm"] > 0
    assert any(not torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["objective=perceval", "reward=math"],
            "which claims of a response are false.*Set reward=lab",
        ),
        (
            [
                "objective=r1_sharevl",
                "rollout.num_responses=6",
                "objective.credits.share_grpo.variants=4",
            ],
            "objective.credits.share_grpo.variants=4",
        ),
        (
            ["objective=r1_sharevl", "objective.sampled_from.turned=0.25"],
            "objective.credits.share_grpo.variants=2 and 3 of image, 1 of turned",
        ),
        (
            ["objective=r1_sharevl", "~objective.sampled_from"],
            "objective.credits.share_grpo.variants=2 and 4 of image",
        ),
        (
            ["objective=grpo", "+objective.gamma=0.02"],
            "objective.gamma=0.02 .*no term .*perception_kl",
        ),
        (["objective=papo_g", "~objective.terms.perception_kl"], "objective.gamma=0.02 .*no term"),
        (
            ["objective=vppo", "+objective.credits.vppo.scope=micro"],
            "objective.credits.vppo.scope must be one of response, group.*got 'micro'",
        ),
        (["objective=cppo", "~objective.views.remove"], "objective.views.remove"),
        (["objective=evidence_rl", "~objective.views.control_1"], "objective.views.control_1"),
        (["objective=noisyrollout", "~objective.views.noised"], "objective.views.noised"),
        (
            ["objective=dvrp", "objective.views.noised.mask.decay=fast"],
            "decay is one of.*got 'fast'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_a_model_is_loaded(overrides, said):
    with pytest.raises(ValueError, match=said):
        make_plan(composed(*overrides))


def test_the_lab_flags_exactly_the_tokens_of_what_was_misread(tmp_path):
    collector = module_of(tmp_path, "objective=perceval").collector
    rollout = collector.collect(0, 0, progress=0.0)
    batch, tokenizer = rollout.batch, collector.policy.encoder.tokenizer
    assert batch.flagged.any()
    misread = 0
    for row, spans in enumerate(rollout.draft.rewards.flawed):
        text = rollout.draft.responses.texts[row]
        said = tokenizer.decode(batch.response_ids[row][batch.flagged[row]].tolist())
        expected = " ".join(text[start:end] for start, end in spans)
        assert said.split() == expected.split()
        misread += len(spans)
    assert misread
    before = rollout.advantages[:, None].expand(batch.flagged.shape)
    lost = torch.where(batch.flagged, 0.1 * before.abs(), 0.0)
    torch.testing.assert_close(
        batch.advantages, (before - lost).where(batch.response_mask, 0.0), check_dtype=False
    )


def test_dvrp_raises_one_divergence_and_lowers_the_other():
    plan = make_plan(composed("objective=dvrp", "fidelity=official"))
    weights = plan.objective.weights(0.0)
    assert weights["necessity"] == -0.01
    assert weights["robustness"] == 0.01
    assert weights["masked_entropy"] == weights["noised_entropy"] == 0.05
    assert plan.objective.needs.old_views == ("masked", "noised")
    live = make_plan(composed("objective=dvrp")).objective.needs
    assert live.live_views == ("masked", "noised")


FADING_MASK = (
    "{_target_: papo.masking.AnnealedDiffusionNoise, initial_step: 500, decay: sigmoid, "
    "steepness: 10.0, middle: 0.5, seed: 0}"
)


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective=dvrp"],
        ["objective=noisyrollout"],
        ["objective=pepo"],
        ["objective=papo_g", "~masking", f"+masking={FADING_MASK}"],
    ],
)
def test_a_run_whose_noise_fades_is_not_made_longer(overrides):
    plan = make_plan(composed(*overrides))
    folder = Mock(spec=RunFolder, **{"changes_length.return_value": True})
    start = Mock(spec=Start, num_rollouts=99)
    with pytest.raises(
        ValueError, match=r"pepo.*annealed view or masking.*training.num_rollouts=99"
    ):
        check_length(plan, folder, start)
