"""Optimiser state and reference wait on the host while responses are sampled; numbers stay the same."""

import pytest
import torch
from lab_module import lab_module, parameters, train

from papo.training import Offload, check_offload


class Mover:
    """Copies as the real one, and counts."""

    def __init__(self):
        self.moves = []

    def __call__(self, target, source):
        self.moves.append((target.data_ptr(), source.data_ptr()))
        target.copy_(source)


def adamw_module(folder, offload=None, **settings):
    module = lab_module(folder, beta=0.1, **settings)
    module.policy_module.make_optimizer = lambda p: torch.optim.AdamW(p, lr=1e-3)
    if offload is not None:
        module.collector.offload = offload
    return module


def watching(module, look):
    """Has `look` called in the middle of every sampling."""
    sample = module.collector.engine.sample

    def looked(*args):
        look()
        return sample(*args)

    module.collector.engine.sample = looked


def test_a_run_that_offloads_is_the_same_to_the_bit_and_moves_each_tensor_once(tmp_path):
    for name in ("plain", "away"):
        (tmp_path / name).mkdir()
    plain = train(adamw_module(tmp_path / "plain"), tmp_path / "plain")
    mover, sizes = Mover(), []
    module = adamw_module(tmp_path / "away", Offload(pinned=False, move=mover))
    watching(
        module,
        lambda: sizes.append([t.untyped_storage().nbytes() for t in module._idle_while_sampling()]),
    )
    away = train(module, tmp_path / "away")
    assert all(torch.equal(plain[name], away[name]) for name in plain)
    copied = len({p.data_ptr() for p in module.collector.reference.parameters()})
    moments = 2 * len([p for p in module.policy_module.policy.parameters() if p.requires_grad])
    first, second = sizes
    assert set(first) == {0}
    # The counts of steps, 4 bytes each, stay.
    assert set(second) <= {0, 4}
    # Out and back: the reference in both rollouts, the moments once there are any.
    assert len(mover.moves) == 2 * (2 * copied + moments)


def test_an_error_while_sampling_leaves_everything_in_place(tmp_path):
    module = adamw_module(tmp_path, Offload(pinned=False))
    before = parameters(module.collector.reference)

    def fail():
        raise RuntimeError("sampling failed")

    watching(module, fail)
    with pytest.raises(RuntimeError, match="sampling failed"):
        train(module, tmp_path)
    after = parameters(module.collector.reference)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_state_that_is_saved_in_the_middle_is_whole(tmp_path):
    module = adamw_module(tmp_path, Offload(pinned=False))
    seen = []

    def save():
        module.state_dict()
        seen.append([t.untyped_storage().nbytes() for t in module._idle_while_sampling()])

    watching(module, save)
    train(module, tmp_path)
    assert len(seen) == 2
    assert 0 not in {size for sizes in seen for size in sizes}


def test_on_a_cpu_there_is_nothing_to_move_away_from():
    check_offload(True, torch.device("cuda", 0))
    check_offload(None, torch.device("cpu"))
    with pytest.raises(
        ValueError, match=r"trainer\.offload_while_sampling=true on cpu\. Set it to false"
    ):
        check_offload(True, torch.device("cpu"))
    with pytest.raises(ValueError, match="true or false; got 'twice'"):
        check_offload("twice", torch.device("cuda", 0))
