"""TrainingModule on the lab's policy, small, without the command line."""

from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]

TRAINING = {
    "num_rollouts": 2,
    "prompts_per_rollout": 4,
    "prompts_per_minibatch": 4,
    "prompts_per_microbatch": 4,
    "tokens_per_microbatch": None,
    "max_grad_norm": 1.0,
    "advantage_epsilon": 1e-6,
    "max_resample": 0,
    "keep_accuracy_above": 0.01,
    "keep_accuracy_below": 0.99,
}

NUM_RESPONSES = 4

MASK = {"ratio": 0.6, "grid": "patch", "raw_square_pixels": 14, "seed": 0}


@cache
def default_config():
    """What `python train.py objective=lab_papo_g safeguard=off` composes: every term has a weight and a live view."""
    from hydra import compose, initialize_config_dir

    from papo.commands import front_door  # registers the resolvers of conf/

    with initialize_config_dir(config_dir=front_door.CONFIG_FOLDER, version_base="1.3"):
        chosen = ["objective=lab_papo_g", "safeguard=off"]
        start = f"model.path={REPOSITORY}/papo/lab/warm_start"
        return compose("train", overrides=[*chosen, start])


def settings_of(section):
    """The names of a section's plain settings."""
    return {key for key, value in default_config()[section].items() if not hasattr(value, "keys")}


def lab_objective(**overrides):
    """The objective of `default_config`; overrides are settings of `objective` or `fidelity`."""
    from omegaconf import OmegaConf

    from papo.commands.building import make_objective

    config = OmegaConf.create(OmegaConf.to_container(default_config(), resolve=False))
    for key, value in overrides.items():
        section = "objective" if key in settings_of("objective") else "fidelity"
        OmegaConf.update(config, f"{section}.{key}", value)
    return make_objective(config)


def lab_policy(**settings):
    """The lab's policy; settings are of its `model` section."""
    from omegaconf import OmegaConf

    from papo.commands.building import instantiate

    return instantiate(OmegaConf.merge(default_config().model, settings))


def lab_problems(size=1000):
    from papo.lab import PerceptionLabProblems

    return PerceptionLabProblems(
        seed=1, prior="training", zipf_exponent=1.0, difficulty=1.0, size=size
    )


def lab_module(
    folder,
    *,
    source=None,
    reward=None,
    learning_rate=1e-3,
    policy=None,
    image_mask=None,
    views=None,
    sampled_from=None,
    ranks=None,
    sharding=None,
    objective=None,
    **overrides,
):
    """Overrides are settings of the objective, of fidelity or of training; or the objective is given."""
    import torch

    from papo.lab import LabReward
    from papo.masking import RandomPatchMask
    from papo.parallel import Ranks
    from papo.rollout import SharedPrefillSampler
    from papo.training import (
        Collector,
        PolicyModule,
        PromptStream,
        ReferenceModule,
        TrainingModule,
        training_settings,
    )
    from papo.views import MASKED, MaskedView

    of_objective = {k: v for k, v in overrides.items() if k not in TRAINING}
    assert not of_objective.keys() - settings_of("objective") - settings_of("fidelity")
    objective = objective or lab_objective(**of_objective)
    settings = training_settings({k: overrides.get(k, v) for k, v in TRAINING.items()})
    policy = policy or lab_policy()
    collector = Collector(
        policy=policy,
        reference=ReferenceModule(policy) if objective.needs.reference else None,
        views={MASKED: MaskedView(mask=image_mask or RandomPatchMask(**MASK)), **(views or {})},
        engine=SharedPrefillSampler(
            policy=policy,
            temperature=1.0,
            top_p=1.0,
            top_k=None,
            max_response_tokens=24,
            max_rows=256,
        ),
        reward=reward or LabReward(),
        prompts=PromptStream(source=source or lab_problems(), seed=1),
        settings=settings,
        num_responses=NUM_RESPONSES,
        needs=objective.needs,
        credit=objective.credit if objective.reads_rollouts else None,
        sampled_from=sampled_from,
        seed=1,
        ranks=ranks or Ranks(),
        sharding=sharding,
    )

    def make_optimizer(parameters):
        return torch.optim.SGD(parameters, lr=learning_rate)

    return TrainingModule(
        policy_module=PolicyModule(policy=policy, make_optimizer=make_optimizer),
        collector=collector,
        objective=objective,
        failure_folder=folder / "non_finite",
    )


def train(module, folder, *callbacks, checkpoint=None):
    """Runs all rollouts of a module, or those after a checkpoint; returns its policy's parameters."""
    from functools import partial

    import torch
    from lightning.pytorch import Trainer

    from papo.training import build_trainer, fit

    make_trainer = partial(Trainer, accelerator="cpu", devices=1, precision="32-true")
    trainer = build_trainer(
        make_trainer,
        folder=folder,
        callbacks=[_no_checkpoints(), *callbacks],
        loggers=[],
        ranks=module.collector.ranks,
        sharding=module.collector.sharding,
        device=torch.device("cpu"),
    )
    fit(trainer, module, checkpoint)
    return parameters(module.policy_module.policy)


def parameters(policy):
    return {name: p.detach().clone() for name, p in policy.named_parameters()}


def _no_checkpoints():
    from lightning.pytorch.callbacks import Checkpoint

    # Lightning adds a checkpoint callback of its own where there is none.
    return Checkpoint()


def reward_by_row(num_rows):
    """A reward that differs within every group, so that advantages are never 0."""
    import torch

    from papo.types import Rewards

    def reward(problems, texts):
        total = torch.arange(len(texts)).float() % num_rows
        return Rewards(total=total, correct=total > 0)

    return reward
