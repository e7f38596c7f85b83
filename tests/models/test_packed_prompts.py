"""Prompts of several lengths are read in one row: no token of padding, no mask of prompt by prompt."""

import pytest
import torch
from model_fixtures import mixed_problems, problem, tiny_policy
from scoring_cases import in_true_float64
from test_scoring_counts import record_backbone
from torch.utils._python_dispatch import TorchDispatchMode

from papo.models.packed_prompts import PackedPrompts, worth_packing
from papo.models.recurrent_state import RecurrentLayer


class LargestMask(TorchDispatchMode):
    """The most numbers that any mask or bias over keys had."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.bool and result.dim() == 4:
            self.numbers = max(self.numbers, result.numel())
        return result


@torch.no_grad()
def test_every_prompt_token_is_read_once_and_no_mask_is_made(family):
    policy = tiny_policy(family)
    groups = policy.encode(mixed_problems())
    lengths = [group.prompt_ids.shape[0] for group in groups]
    calls = record_backbone(policy)
    with LargestMask() as packed:
        policy.prefill(groups)
    assert calls == [(1, sum(lengths))]
    assert packed.numbers < min(lengths) ** 2  # those of the tower and stand-ins
    with LargestMask() as padded:
        policy.reader._prefill_padded(groups)
    assert calls[1] == (3, max(lengths))
    assert padded.numbers >= max(lengths) ** 2


@torch.no_grad()
def test_it_reads_what_padded_prompts_say(family, monkeypatch):
    policy = in_true_float64(tiny_policy(family), monkeypatch)
    groups = policy.encode([*mixed_problems(), problem(id="again")])
    got, expected = policy.prefill(groups), policy.reader._prefill_padded(groups)
    torch.testing.assert_close(got.last_hidden, expected.last_hidden, rtol=0, atol=1e-12)
    assert torch.equal(got.next_positions, expected.next_positions)

    def held(prefix):  # of real tokens, on whichever side the padding is; and states
        return [
            part
            for layer in prefix.cache.layers
            for part in (
                (layer.conv, layer.recurrent)
                if isinstance(layer, RecurrentLayer)
                else (
                    each.transpose(1, 2)[prefix.attention_mask]
                    for each in (layer.keys, layer.values)
                )
            )
        ]

    for some, same in zip(held(got), held(expected), strict=True):
        torch.testing.assert_close(some, same, rtol=0, atol=1e-12)


def test_prompts_stand_by_length_and_are_found_in_the_order_of_the_call():
    policy = tiny_policy()
    groups = policy.encode(mixed_problems())
    packed = PackedPrompts.of(groups)
    assert [block.rows.num_groups for block in packed.layout.blocks] == [1, 1, 1]
    for group, rows in zip(groups, packed.rows, strict=True):
        length = group.prompt_ids.shape[0]
        assert torch.equal(packed.ids[rows[:length]], group.prompt_ids)
        assert torch.equal(packed.positions[:, rows[:length]], group.position_ids)


@pytest.mark.parametrize(("device", "few", "equal"), [("cpu", False, False), ("cuda", True, False)])
def test_it_packs_where_padding_costs_something(device, few, equal):
    policy, device = tiny_policy(), torch.device(device)
    one, longer = problem("what", images=()), problem("what?", images=())
    assert worth_packing(policy.encode(mixed_problems()), device)
    assert worth_packing(policy.encode([one, longer]), device) == few
    assert worth_packing(policy.encode([one, one]), device) == equal
