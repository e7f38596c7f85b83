"""Every credit that conf/ configures and every class that offers one, and rollouts for them."""

import functools
import inspect
from dataclasses import fields

import torch
import yaml
from hydra import compose, initialize_config_dir

import papo.methods
from papo.commands import building, front_door
from papo.functional import group_advantages
from papo.objective import Blocks, Credit
from papo.types import IMAGE, RolloutBatch, ViewScores

CONF = front_door.CONF
NUM_GROUPS, NUM_RESPONSES, NUM_TOKENS, NUM_IDS = 4, 4, 9, 3
BLOCKS = Blocks(
    num_rollouts=NUM_GROUPS * NUM_RESPONSES,
    num_responses=NUM_RESPONSES,
    rollouts_per_minibatch=2 * NUM_RESPONSES,
)

OBJECTIVES = tuple(sorted(path.stem for path in (CONF / "objective").glob("*.yaml")))


@functools.cache
def config_of(objective, fidelity="official", *overrides):
    """What `python train.py objective=...` composes."""
    with initialize_config_dir(config_dir=front_door.CONFIG_FOLDER, version_base="1.3"):
        chosen = [f"objective={objective}", f"fidelity={fidelity}", *overrides]
        return compose("train", overrides=chosen)


@functools.cache
def objective_of(objective, fidelity="official"):
    return building.make_objective(config_of(objective, fidelity))


CREDITS = tuple(
    f"{path.stem}-{credit}"
    for path in sorted((CONF / "objective").glob("*.yaml"))
    for credit in yaml.safe_load(path.read_text("utf-8")).get("credits") or ()
)
"""Objective and name of each credit."""


def credit_of(name):
    objective, _, credit = name.partition("-")
    return objective_of(objective).credits[credit]


CLASSES = {
    name
    for name in papo.methods.__all__
    if inspect.isclass(found := getattr(papo.methods, name)) and issubclass(found, Credit)
}


def scopes_of(credit):
    return [each.name for each in fields(credit) if each.name.endswith("scope")]


def lengths_of(num_rollouts):
    return torch.arange(num_rollouts) * 5 % NUM_TOKENS + 1


def drawn(quantity, mask, generator):
    """Values that a policy might have."""
    values = torch.rand(mask.shape, generator=generator, dtype=torch.float64) + 0.01
    if quantity == "logprobs":
        values = -3 * values
    if quantity == "jsd_from_image":
        values = values / 2
    return values.where(mask, 0.0)


def rollout(credit, *, seed=0, num_groups=NUM_GROUPS, rewards=None, lengths=None):
    """A rollout with whatever the credit needs; groups differ, all have right and wrong responses."""
    generator = torch.Generator().manual_seed(seed)
    num_rollouts = num_groups * NUM_RESPONSES
    lengths = lengths_of(num_rollouts) if lengths is None else lengths
    mask = torch.arange(NUM_TOKENS)[None] < lengths[:, None]
    if rewards is None:
        rewards = torch.rand(num_rollouts, generator=generator, dtype=torch.float64) * 0.4
        rewards[::2] += 0.6
    advantages = group_advantages(rewards, num_responses=NUM_RESPONSES, epsilon=1e-6)
    old_logprobs = drawn("logprobs", mask, generator)
    needed = {}
    for view, quantity in sorted(credit.needs.old):
        needed.setdefault(view, {})[quantity] = drawn(quantity, mask, generator)
    for view, quantities in needed.items():
        own = old_logprobs if view == IMAGE else drawn("logprobs", mask, generator)
        quantities.setdefault("logprobs", own)
    return RolloutBatch(
        num_responses=NUM_RESPONSES,
        response_mask=mask,
        old_logprobs=old_logprobs,
        advantages=advantages[:, None].expand(mask.shape).clone(),
        correct=rewards > 0.5,
        rewards=rewards,
        response_ids=torch.randint(0, NUM_IDS, mask.shape, generator=generator),
        flagged=(torch.rand(mask.shape, generator=generator) > 0.5) & mask
        if credit.needs.flagged
        else None,
        old_views={view: ViewScores(**quantities) for view, quantities in needed.items()},
    )


def blocks_of(batch):
    return Blocks(
        num_rollouts=batch.num_rollouts,
        num_responses=batch.num_responses,
        rollouts_per_minibatch=2 * NUM_RESPONSES,
    )


def given(credit, batch, blocks=None, progress=0.5):
    """The advantages of the tokens; at padding 0."""
    advantages = credit(batch, blocks or blocks_of(batch), progress=progress)
    assert advantages.shape == batch.response_mask.shape
    return advantages.where(batch.response_mask, 0.0)
