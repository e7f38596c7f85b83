"""A pass that runs out of memory is done again smaller: nothing is lost, nothing counted twice."""

import logging
import weakref

import pytest
import torch
from lab_module import NUM_RESPONSES, lab_module, reward_by_row, train

from papo.machine.out_of_memory import is_out_of_memory
from papo.training.failures import GroupDoesNotFit

CPU_MESSAGE = "[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"
ERRORS = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), CPU_MESSAGE]
BY_TOKENS = {"prompts_per_microbatch": None, "tokens_per_microbatch": 10**6}


def module_in(folder, **overrides):
    folder.mkdir(exist_ok=True)
    reward = reward_by_row(NUM_RESPONSES)
    settings = {"beta": 0.01, "masked_policy": "old", "num_rollouts": 3, **overrides}
    return lab_module(folder, reward=reward, **settings)


def fail(error):
    # A new one each time: an exception holds the frames it was raised in, and their tensors.
    raise type(error)(*error.args) if isinstance(error, Exception) else RuntimeError(error)


def limit(monkeypatch, owner, name, max_groups, error=ERRORS[0]):
    """Lets a scoring pass over more groups run out of memory; returns the sizes that were tried."""
    original, tried = getattr(owner, name), []

    def limited(groups, *arguments, **settings):
        tried.append(len(groups))
        if len(groups) > max_groups:
            fail(error)
        return original(groups, *arguments, **settings)

    monkeypatch.setattr(owner, name, limited)
    return tried


def assert_close(got, expected):
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    module = module_in(folder)
    return train(module, folder), module.last_step.metrics


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("settings", [{}, BY_TOKENS])
def test_an_update_is_done_again_with_less(tmp_path, monkeypatch, error, settings):
    module = module_in(tmp_path, beta=0.0, **settings)
    expected = train(module_in(tmp_path / "whole", beta=0.0), tmp_path / "whole")
    tried = limit(monkeypatch, module.collector.policy, "score", 1, error)
    assert_close(train(module, tmp_path), expected)
    # The old masked view is scored by it too. Halved in the first pass of the run, and never tried again.
    assert tried[0] == 4
    assert tried[-8:] == [1] * 8
    assert sum(size > 1 for size in tried) <= 2
    halvings = module.collector.microbatches.halvings
    assert module.last_step.metrics["update/microbatch_halvings"] == halvings >= 2


@pytest.mark.parametrize("pass_name", ["reference", "masked"])
def test_scoring_is_done_again_and_the_rollout_kept(tmp_path, monkeypatch, undisturbed, pass_name):
    module = module_in(tmp_path)
    collector = module.collector
    owner, name = {
        "reference": (collector.reference, "score"),
        "masked": (collector.look_again, "_score_view"),
    }[pass_name]
    tried = limit(monkeypatch, owner, name, 2)
    sampled = []
    original = collector.engine.sample
    monkeypatch.setattr(
        collector.engine, "sample", lambda *a: (sampled.append(a[2]), original(*a))[1]
    )
    assert_close(train(module, tmp_path), undisturbed[0])
    assert tried == [4] + 3 * [2, 2]
    assert len(sampled) == 3
    assert collector.microbatches.halvings == 1


@pytest.mark.parametrize("moment", ["forward", "backward"])
def test_half_of_a_gradient_is_never_applied(tmp_path, monkeypatch, undisturbed, moment):
    """The second of two passes fails, after the first has left its gradient and its terms."""
    module = module_in(tmp_path, prompts_per_microbatch=2)
    original, calls, refs = module._score, [], []

    def second_fails(part):
        calls.append(len(part.groups))
        if len(calls) == 2 and moment == "forward":
            fail(ERRORS[0])
        if len(calls) == 3:
            assert all(
                p.grad is None or not p.grad.any() for p in module.policy_module.parameters()
            )
            assert all(ref() is None for ref in refs), "the failed attempt still holds memory"
        scores = original(part)
        refs.append(weakref.ref(scores["image"].logprobs))
        if len(calls) == 2:
            scores["image"].logprobs.register_hook(lambda _: fail(ERRORS[0]))
        return scores

    monkeypatch.setattr(module, "_score", second_fails)
    assert_close(train(module, tmp_path), undisturbed[0])
    assert calls == [2, 2] + 3 * [1, 1, 1, 1]
    for name, value in undisturbed[1].items():
        if name != "update/microbatch_halvings":
            got = module.last_step.metrics[name]
            assert got == pytest.approx(value, rel=1e-3, abs=1e-5), name


def test_what_happened_is_told_once(tmp_path, monkeypatch, caplog):
    module = module_in(tmp_path, num_rollouts=2)
    limit_update(monkeypatch, module, 2)
    with caplog.at_level(logging.WARNING, "papo.training.microbatches"):
        train(module, tmp_path)
    [record] = caplog.records
    assert "4 prompts" in record.message
    assert "2 prompts per pass" in record.message


def limit_update(monkeypatch, module, max_groups):
    original = module._score

    def limited(part):
        if len(part.groups) > max_groups:
            fail(ERRORS[0])
        return original(part)

    monkeypatch.setattr(module, "_score", limited)


@pytest.mark.parametrize("settings", [{}, BY_TOKENS])
def test_one_group_that_does_not_fit_ends_the_run_and_names_the_key(
    tmp_path, monkeypatch, settings
):
    module = module_in(tmp_path, **settings)
    limit_update(monkeypatch, module, 0)
    before = {n: p.detach().clone() for n, p in module.policy_module.policy.named_parameters()}
    with pytest.raises(
        GroupDoesNotFit, match=r"training\.prompts_per_microbatch.*Tried to allocate"
    ):
        train(module, tmp_path)
    for name, parameter in module.policy_module.policy.named_parameters():
        assert torch.equal(parameter, before[name])


def test_another_error_is_not_retried(tmp_path, monkeypatch):
    module = module_in(tmp_path)
    tried = limit(
        monkeypatch, module.collector.reference, "score", 0, RuntimeError("shapes differ")
    )
    with pytest.raises(RuntimeError, match="shapes differ"):
        module.collector.collect(0, 0, progress=0.0)
    assert tried == [4]


def test_a_real_failure_of_the_allocator_is_recognised():
    with pytest.raises(RuntimeError) as failure:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(failure.value)
    assert is_out_of_memory(torch.OutOfMemoryError("any text"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(ValueError("not enough memory"))


def test_a_resumed_run_keeps_the_smaller_passes(tmp_path, monkeypatch):
    from papo.training.checkpoints import RolloutCheckpoint

    def every_rollout():
        return RolloutCheckpoint(every_rollouts=1, keep_last=9)

    first = module_in(tmp_path / "a")
    limit_update(monkeypatch, first, 2)
    expected = train(first, tmp_path / "a", every_rollout())
    checkpoint = tmp_path / "a" / "checkpoints" / "rollout_000001.ckpt"

    # The resumed run has more memory, and must not make use of it: sums would be rounded otherwise.
    resumed = module_in(tmp_path / "b")
    got = train(resumed, tmp_path / "b", checkpoint=checkpoint)
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    rows = [(tmp_path / run / "metrics.csv").read_text().splitlines() for run in "ab"]
    assert rows[1][1:] == rows[0][2:]
    assert resumed.collector.microbatches.halvings == 1
