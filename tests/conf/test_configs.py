"""Every configuration composes, resolves and builds; published numbers are in one place each.

The rows of the published table, model sizes included, are test_published_runs.py's.
"""

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from papo.commands import building
from papo.commands.training.plan import make_plan

REPOSITORY = Path(__file__).resolve().parents[2]
CONF = REPOSITORY / "conf"


GROUPS = (
    *("model", "data", "reward", "fidelity", "masking", "rollout", "objective", "optimizer"),
    *("trainer", "logger", "callbacks", "safeguard", "training", "schedule"),
)
# One response to a problem has no group to be compared with.
FOR_EVALUATION = ("rollout=greedy",)
CHOICES = [
    choice
    for group in GROUPS
    for file in sorted((CONF / group).glob("*.yaml"))
    if (choice := f"{group}={file.stem}") not in FOR_EVALUATION
]
ADDED = [
    f"+{folder}={file.stem}"
    for folder in ("experiment", "debug")
    for file in sorted((CONF / folder).glob("*.yaml"))
]
# What a choice needs beside it.
WITH = {
    "data=local": ["data.path=."],
    "data=mixture": ["+data@data.sets.a=geometry3k"],
    "+experiment=own_data": ["data.path=."],
    "logger=wandb": ["logger.wandb.mode=disabled"],
    "logger=all": ["logger.wandb.mode=disabled"],
}


def composed(*overrides):
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def test_every_group_is_tried():
    assert len(CHOICES) > 25
    assert len(ADDED) > 10


@pytest.mark.parametrize("choice", [*CHOICES, *ADDED])
def test_every_choice_resolves_and_makes_a_plan(choice):
    config = composed(choice, *WITH.get(choice, ()))
    OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    plan = make_plan(config)
    assert plan.settings.num_rollouts >= 1
    assert callable(plan.make_engine)
    assert plan.make_trainer.func.__name__ == "Trainer"


@pytest.mark.parametrize("choice", [c for c in CHOICES if c.startswith("logger=")])
def test_every_logger_starts_and_ends(choice, tmp_path):
    from papo.training import finish_loggers

    config = composed(choice, f"run_dir={tmp_path}", *WITH.get(choice, ()))
    loggers = [building.instantiate(node) for node in config.logger.values()]
    for logger in loggers:
        logger.log_metrics({"rollout_step": 1, "reward/mean": 0.5}, step=1)
        logger.finalize("success")
    finish_loggers(loggers)


@pytest.mark.parametrize("choice", ["trainer=auto", "trainer=cpu"])
def test_a_trainer_of_this_machine_is_one_process(choice, tmp_path):
    from papo.parallel import Ranks
    from papo.training import build_trainer

    plan = make_plan(composed(choice))
    trainer = build_trainer(
        plan.make_trainer,
        folder=tmp_path,
        callbacks=plan.callbacks,
        loggers=[],
        ranks=Ranks(),
        device=torch.device("cpu"),
    )
    assert trainer.world_size == 1


def test_the_lab_differs_from_the_published_runs_where_it_says_so():
    lab, published = composed(), composed("+experiment=papo_g_3b")
    assert lab.objective.gamma == 0.3
    assert lab.objective.eta_full == 0.05
    assert lab.fidelity.perception_estimator == "jsd"
    assert lab.safeguard.rollbacks.max_rollbacks == 3
    assert published.safeguard == {}
    assert published.objective.gamma == 0.02
    assert published.objective.eta_masked == 0.0
    assert lab.optimizer.lr == 3e-4
    assert published.optimizer.lr == 1e-6
    assert published.rollout.num_responses == 5
    assert published.rollout.top_p == 0.99
    assert published.training.prompts_per_rollout == 384


def test_overriding_an_objective_on_the_lab_takes_all_of_it():
    config = composed("objective=grpo")
    # No further terms, nor their keys.
    assert set(config.objective.terms) == {"surrogate", "kl_ref"}
    assert not {"gamma", "eta_full", "eta_masked"} & set(config.objective)


def test_a_run_folder_is_named_after_its_experiment(monkeypatch):
    assert composed().run_dir.startswith("outputs/lab/")


@pytest.mark.parametrize(
    ("choices", "with_gpu", "without"),
    [
        (["training=published", "trainer=auto"], (None, 12288), (1, None)),
        (["+experiment=papo_g_3b"], (None, 12288), (None, 12288)),
        (["training=published", "trainer=cpu"], (1, None), (1, None)),
        (["training=published", "~trainer.accelerator"], (None, 12288), (1, None)),
        (["trainer=auto"], (16, None), (16, None)),
        (["training=published", "trainer=auto", "+debug=quick"], (2, None), (2, None)),
    ],
)
def test_a_pass_takes_several_prompts_where_the_run_has_a_gpu(
    monkeypatch, choices, with_gpu, without
):
    for has_gpu, expected in ((True, with_gpu), (False, without)):
        monkeypatch.setattr("torch.cuda.is_available", lambda has_gpu=has_gpu: has_gpu)
        training = composed(*choices).training
        assert (training.prompts_per_microbatch, training.tokens_per_microbatch) == expected


def test_micro_batches_are_cut_by_one_of_two_budgets():
    published = make_plan(composed("training=published", "data.size=384")).settings
    assert (published.prompts_per_microbatch, published.tokens_per_microbatch) == (1, None)
    by_tokens = ("training.prompts_per_microbatch=null", "training.tokens_per_microbatch=8192")
    assert make_plan(composed(*by_tokens)).settings.tokens_per_microbatch == 8192
    for neither_or_both in by_tokens:
        with pytest.raises(ValueError, match=r"training\.prompts_per_microbatch.*tokens_per_micro"):
            make_plan(composed(neither_or_both))
