"""Small runs whose outcome must not depend on the number of ranks; each is called on every rank."""

import hashlib
import tempfile
from contextlib import nullcontext
from pathlib import Path

NUM_PROMPTS = 8

SETTINGS = {
    "num_rollouts": 2,
    "prompts_per_rollout": NUM_PROMPTS,
    "prompts_per_minibatch": 4,
    "prompts_per_microbatch": 1,
}

BY_TOKENS = {"prompts_per_microbatch": None, "tokens_per_microbatch": 150}
RESAMPLING = {"max_resample": 4, "keep_accuracy_above": 0.3, "keep_accuracy_below": 0.7}
OLD_MASKED_AND_REFERENCE = {"masked_policy": "old", "beta": 0.05, "gamma": 0.05}


TINY = {"hidden_size": 32, "intermediate_size": 32, "vision_hidden_size": 32}


class Pictured:
    """Problems with noise for pictures; those at the positions `text_only`, modulo 8, have none."""

    def __init__(self, text_only=()):
        self.text_only = frozenset(text_only)

    def __len__(self):
        return 64

    def __getitem__(self, index):
        from model_fixtures import noise_image, problem

        question = f"how many? {'word ' * (index % 5)}"
        if index % 8 in self.text_only:
            return problem(question, images=(), id=f"p{index}")
        side = 56 + 28 * (index % 3)
        return problem("<image>" + question, images=(noise_image(side, 56, index),), id=f"p{index}")


class HashReward:
    """A reward of any text: 0 to 1, drawn from its hash."""

    def __call__(self, problems, texts):
        import torch

        from papo.types import Rewards

        digests = [
            hashlib.sha256((problem.id + text).encode("utf-8", "replace")).digest()[0] % 7
            for problem, text in zip(problems, texts, strict=True)
        ]
        total = torch.tensor(digests).float() / 6
        return Rewards(
            total=total, correct=total > 0.5, components={"hash": total}, timeouts=len(texts)
        )


def built(ranks, folder, *, dtype="float64", tiny=None, text_only=(), shards=None, **settings):
    """The module of a small run, with AdamW: it treats no gradient and a gradient of zero differently.

    `shards` are arguments of Sharding beside the ranks; None: every rank has the whole policy.
    """
    import torch
    from lab_module import lab_module, lab_policy
    from model_fixtures import tiny_policy

    # Adapters begin with random numbers.
    torch.manual_seed(0)
    policy = lab_policy() if tiny is None else tiny_policy(**tiny)
    policy.to(getattr(torch, dtype))
    module = lab_module(
        Path(folder),
        policy=policy,
        source=None if tiny is None else Pictured(text_only),
        reward=HashReward(),
        ranks=ranks,
        sharding=sharding_of(ranks, shards),
        **{**SETTINGS, **settings},
    )
    module.policy_module.make_optimizer = lambda parameters: torch.optim.AdamW(
        parameters, lr=1e-3, weight_decay=0.1
    )
    return module


def sharding_of(ranks, shards):
    from papo.parallel import Sharding

    if shards is None or ranks.size == 1:
        return None
    plain = {"shard_size": None, "device_type": "cpu", "half_precision": False}
    return Sharding(ranks=ranks, **{**plain, **shards})


def facts(module, step):
    """What must be the same for every number of ranks, as plain values and arrays."""
    from papo.parallel import full_tensor

    return {
        "weights": {
            name: full_tensor(parameter.detach()).numpy().copy()
            for name, parameter in module.policy_module.policy.named_parameters()
        },
        "texts": step.rollout.draft.responses.texts,
        "rewards": step.rollout.draft.rewards.total.tolist(),
        "prompts_drawn": module.prompts_drawn,
        "metrics": step.metrics,
        "own_groups": len(step.rollout.batch.groups),
        "moved": [prompt.position for prompt in step.rollout.draft.prompts if prompt.group is None],
    }


def trained(ranks, *callbacks, folder=None, checkpoint=None, **settings):
    """Trains to the end; returns `facts`."""
    from lab_module import train

    folder = Path(folder or tempfile.mkdtemp())
    module = built(ranks, folder, **settings)
    with exactly(module.policy_module.policy):
        train(module, folder, *callbacks, checkpoint=checkpoint)
    return facts(module, module.last_step)


def exactly(policy):
    """Where a model computes its states in float32, whatever its weights: float64 throughout, within."""
    from conformance.exact import in_float64

    from papo.models.recurrent_state import has_recurrence

    return in_float64(policy) if has_recurrence(policy.model.config) else nullcontext()


class Stops(Exception):
    """Ends a case at a chosen moment."""


def at_rollout(number, action):
    """A callback that acts after so many rollouts."""
    from lightning.pytorch import Callback

    class At(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args, **kwargs):
            if pl_module.rollout_step == number:
                action()

    return At()
