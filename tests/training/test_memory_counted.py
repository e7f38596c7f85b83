"""The count of what passes hold, against every storage that is alive in one."""

import weakref
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from model_fixtures import noise_image, problem, tiny_policy, with_noise_as_masked_view
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from papo.training import estimate_memory
from papo.training.activations import PassSizes

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA = {"language": {"r": 4, "alpha": 8, "targets": TARGETS}}


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operators have made and that are still there, and their largest sum."""

    def __init__(self):
        super().__init__()
        self.known, self.live, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for value in tree_iter((args, kwargs)):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                if storage._cdata not in self.known:
                    # What was there before is no part of the pass.
                    self._add(storage, 0)
        made = function(*args, **(kwargs or {}))
        for value in tree_iter(made):
            if isinstance(value, torch.Tensor):
                storage = value.untyped_storage()
                if storage._cdata not in self.known:
                    self._add(storage, storage.nbytes())
        return made

    def _add(self, storage, size):
        key = storage._cdata
        self.known[key] = size
        self.live += size
        self.peak = max(self.peak, self.live)
        # The next storage may have the address of one that is gone.
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key):
        self.live -= self.known.pop(key, 0)


def told_of(policy, groups, ids, *, half, views, intervenes=False):
    prompt = groups[0].prompt_ids.shape[0]
    shared, repeated = prompt + ids.numel(), ids.shape[0] * (prompt + ids.shape[1])
    return estimate_memory(
        model=policy.model,
        sizes=PassSizes(
            tokens=shared if policy.shares_prefix else repeated,
            prompt_tokens=prompt if policy.shares_prefix else repeated,
            rows=ids.shape[0],
            response_tokens=ids.numel(),
            patches=groups[0].patches.shape[0],
            views=views,
            row_tokens=prompt + ids.shape[1],
            cached_tokens=0,
            sampled_rows=0,
        ),
        make_optimizer=partial(torch.optim.AdamW, lr=1e-3),
        has_reference=False,
        half_precision=half,
        checkpointing=policy.gradient_checkpointing,
        head_chunk_size=policy.head_chunk_size,
        on_gpu=False,
        intervenes=intervenes,
    )


def counted_and_told(family, *, half, views=1, responses=4, tokens=50, side=112, **settings):
    """Peak of a pass forward and backward, where gradients are there already, and the estimate of it."""
    policy = tiny_policy(family, **settings)
    image = noise_image(side, side)
    groups = with_noise_as_masked_view(
        policy.encode([problem("<image>" + "What? " * 10, images=(image,))])
    )
    ids = torch.randint(5, 200, (responses, tokens), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(ids.shape, dtype=torch.bool)

    def one_pass():
        # As Lightning enters it: no cast outlives its use but in the graph.
        autocast = torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False)
        with autocast if half else nullcontext():
            scores = policy.score(groups, ids, mask, views=("image", "masked")[:views])
        loss = scores["image"].logprobs.sum()
        return loss if views == 1 else loss - scores["masked"].logprobs.sum()

    one_pass().backward()
    with LiveBytes() as live:
        one_pass().backward()
    told = told_of(policy, groups, ids, half=half, views=views)
    return live.peak, told.activations + told.head


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("changed", [{}, {"views": 2, "freeze_vision": True}], ids=["plain", "two"])
def test_a_pass_through_linear_attention_holds_what_is_told_within_a_tenth(
    checkpointing, half, changed
):
    counted, told = counted_and_told(
        "qwen3_5", half=half, gradient_checkpointing=checkpointing, num_layers=4, **changed
    )
    assert told == pytest.approx(counted, rel=0.1), told / counted


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"views": 2},
        {"freeze_vision": True},
        {"lora": LORA},
        {"responses": 5, "tokens": 100, "hidden_size": 128, "intermediate_size": 512},
    ],
    ids=["plain", "two views", "frozen tower", "adapters", "wider"],
)
def test_a_pass_holds_what_is_told_within_a_tenth(family, checkpointing, half, changed):
    counted, told = counted_and_told(
        family, half=half, gradient_checkpointing=checkpointing, num_layers=4, **changed
    )
    assert told == pytest.approx(counted, rel=0.1), told / counted


@pytest.mark.parametrize("family", ["internvl", "smolvlm"])
@pytest.mark.parametrize(("half", "checkpointing"), [(False, True), (True, False)])
def test_towers_of_tiles_hold_what_is_told(family, half, checkpointing):
    counted, told = counted_and_told(
        family, half=half, gradient_checkpointing=checkpointing, num_layers=4, views=2
    )
    assert told == pytest.approx(counted, rel=0.1), told / counted


@pytest.mark.parametrize(
    ("scoring", "half", "checkpointing"),
    [
        *(
            ("padded", half, checkpointing)
            for half in (False, True)
            for checkpointing in (False, True)
        ),
        *(("twopass", half, False) for half in (False, True)),
    ],
)
def test_layers_with_windows_hold_what_is_told(scoring, half, checkpointing):
    counted, told = counted_and_told(
        "gemma3",
        half=half,
        gradient_checkpointing=checkpointing,
        scoring=scoring,
        num_layers=4,
        views=2,
    )
    assert told == pytest.approx(counted, rel=0.1), told / counted


@pytest.mark.parametrize(("responses", "tokens", "half"), [(3, 20, False), (2, 200, True)])
def test_a_counterfactual_view_holds_what_is_told(responses, tokens, half):
    policy = tiny_policy(num_layers=2)
    (group,) = policy.encode([problem("<image>" + "What? " * 10, images=(noise_image(112, 112),))])
    group = replace(group, views={"counterfactual": (replace(group, salient_above=2.0),)})
    ids = torch.randint(5, 200, (responses, tokens), generator=torch.Generator().manual_seed(0))
    autocast = torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False)
    with torch.no_grad(), autocast if half else nullcontext(), LiveBytes() as live:
        policy.score(
            [group], ids, torch.ones_like(ids, dtype=torch.bool), views=("counterfactual",)
        )
    told = told_of(policy, [group], ids, half=half, views=1, intervenes=True)
    assert told.intervened == pytest.approx(live.peak, rel=0.1), told.intervened / live.peak
    assert told.moments["the second look"] == told.weights + told.optimizer + told.intervened
    assert told_of(policy, [group], ids, half=half, views=1).intervened == 0
