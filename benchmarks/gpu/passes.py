"""One pass over one group: the vision tower, the head, and forward and backward by each way of scoring."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.ceilings import product
from benchmarks.gpu.setting import Setting
from benchmarks.gpu.worker import Answer
from benchmarks.step_model import FORWARD_AND_BACKWARD
from papo.functional import token_statistics
from papo.models.flops import ScoringFlops, ScoringShape, shared_flops


class Group:
    """The published group: P and T tokens, G responses of the mean length."""

    def __init__(self, setting: Setting) -> None:
        plan = setting.plan(prompts=1)
        self.groups = setting.groups(1)
        shape = (plan.num_responses, setting.sizes.mean)
        vocabulary = setting.policy.adapter.head_weight.shape[0]
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(100, vocabulary, shape, generator=generator).to(setting.device)
        self.mask = torch.ones_like(self.ids, dtype=torch.bool)
        self.flops: ScoringFlops = shared_flops(
            setting.policy.model.config, ScoringShape.of(self.groups, self.mask)
        )

    def score(self, policy: Any) -> torch.Tensor:
        """log p of the responses. [rollout token]"""
        scores = policy.score(self.groups, self.ids, self.mask)
        logprobs: torch.Tensor = scores["image"].logprobs
        return logprobs


def measured_peak(setting: Setting) -> float:
    """Operations per second of a large product, which MFU divides by."""
    return float(product(setting)["rates"]["peak"])


def parts(setting: Setting) -> Iterator[Answer]:
    """What a forward pass is made of; the rest of it are the layers of the language model."""
    group, policy = Group(setting), setting.policy
    picture = setting.seconds(lambda: setting.groups(1), repetitions=5)
    yield {"what": "a picture becomes patches", "ms": 1e3 * picture, "rates": {"picture": picture}}
    [one] = group.groups
    patches = one.patches.to(setting.device)
    weight = policy.adapter.head_weight.detach()
    hidden = torch.randn(group.ids.numel(), weight.shape[1], device=setting.device)
    head = partial(
        token_statistics,
        hidden,
        weight,
        group.ids.flatten(),
        temperature=1.0,
        banned_ids=None,
        full_vocabulary=False,
        chunk_size=policy.head_chunk_size,
    )
    with torch.no_grad(), setting.precision():
        seconds = {
            "vision": setting.seconds(
                lambda: policy.adapter.vision_features(patches, one.pictures)
            ),
            "head": setting.seconds(head),
            "whole": setting.seconds(lambda: group.score(policy)),
        }
    layers = max(seconds["whole"] - seconds["vision"] - seconds["head"], 1e-9)
    rate = (group.flops.prompts + group.flops.responses) / layers
    for name in ("vision", "head", "whole"):
        operations = group.flops.total if name == "whole" else getattr(group.flops, name)
        yield {
            "what": f"{name}, forward",
            "ms": 1e3 * seconds[name],
            "tflop": operations / 1e12,
            "tflops": operations / seconds[name] / 1e12,
        }
    yield {
        "what": "layers, forward, casts of the weights among them",
        "ms": 1e3 * layers,
        "tflops": rate / 1e12,
        "rates": {
            "blocks": rate,
            "vision_launches": max(seconds["vision"] - group.flops.vision / rate, 0.0),
        },
    }


def by_backend(backend: str) -> Callable[[Setting], Iterator[Answer]]:
    """A cell: forward and backward of the group by one way of scoring."""

    def cell(setting: Setting) -> Iterator[Answer]:
        group, policy = Group(setting), setting.scoring_by(backend)

        def forward() -> torch.Tensor:
            with setting.precision():
                return group.score(policy)

        def both() -> None:
            (-forward().mean()).backward()

        with torch.no_grad():
            yield {"scored_by": backend, "ms_forward": 1e3 * setting.seconds(forward)}
        seconds = setting.seconds(both)
        yield {
            "scored_by": backend,
            "ms_forward_and_backward": 1e3 * seconds,
            "useful_mfu": FORWARD_AND_BACKWARD
            * group.flops.total
            / seconds
            / measured_peak(setting),
            "peak_gib": setting.peak_gib(both),
        }

    return cell
