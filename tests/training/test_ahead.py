"""One step ahead with the policy as the engine: whose responses a rollout has, and what a checkpoint holds of them."""

import csv
from copy import deepcopy
from functools import partial

import pytest
import torch
from lab_module import NUM_RESPONSES, lab_module, train
from test_agreement import mixed

from papo.rollout import SharedPrefillSampler, check_ahead
from papo.training.checkpoints import RolloutCheckpoint, checkpoint_path
from papo.types import Begun


def ahead(folder, **settings):
    module = lab_module(folder, **settings)
    module.collector.ahead.rollouts = 1
    return module


def scores(policy, batch):
    with torch.no_grad():
        return policy.score(batch.groups, batch.response_ids, batch.response_mask)["image"].logprobs


def moved(policy):
    before, generator = deepcopy(policy), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return before


def test_what_was_written_ahead_is_kept_as_the_older_policy_said_it(tmp_path):
    module = ahead(tmp_path)
    collector, policy = module.collector, module.policy_module.policy
    first = collector.collect(0, 0, progress=0.0)
    before = moved(policy)
    second = collector.collect(1, first.prompts_drawn, progress=0.5)
    batch = second.batch
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-5)
    close(batch.behaviour_logprobs, scores(before, batch))
    close(batch.old_logprobs, scores(policy, batch))
    assert (first.age, second.age) == (0.0, 1.0)
    assert [prompt.position for prompt in second.draft.prompts] == [4, 5, 6, 7]
    # The responses of the first rollout are on record in the same way.
    close(first.batch.behaviour_logprobs, first.batch.old_logprobs)


def test_further_rounds_of_dynamic_sampling_are_of_the_newest_weights(tmp_path):
    module = ahead(tmp_path, max_resample=2, reward=mixed)
    collector, policy = module.collector, module.policy_module.policy
    first = collector.collect(0, 0, progress=0.0)
    assert first.resample_rounds == 2
    before = moved(policy)
    second = collector.collect(1, first.prompts_drawn, progress=0.5)
    rounds = [prompt.round_index for prompt in second.draft.prompts]
    assert rounds == [0, 0, 2, 2]
    assert second.age == 0.5
    half = 2 * NUM_RESPONSES
    behaviour = second.batch.behaviour_logprobs
    for policy_of, part in ((before, slice(None, half)), (policy, slice(half, None))):
        expected = scores(policy_of, second.batch)[part]
        torch.testing.assert_close(behaviour[part], expected, rtol=0, atol=1e-5)


def test_a_state_has_the_responses_that_are_to_be_learned_from(tmp_path):
    module = ahead(tmp_path, num_rollouts=3)
    collector = module.collector
    first = collector.collect(0, 0, progress=0.0)
    assert collector.ahead.state(0) is None
    state = collector.ahead.state(1)
    assert (state["step"], state["weights"]) == (1, 0)
    second = collector.collect(1, first.prompts_drawn, progress=0.5)
    # In the middle of a rollout too: its weights may not have changed yet.
    again = collector.ahead.state(1)
    assert torch.equal(again["responses"]["ids"], second.draft.responses.ids)
    assert collector.ahead.state(2)["step"] == 2

    other = ahead(tmp_path, num_rollouts=3).collector
    other.ahead.restore(state)
    restored = other.collect(1, first.prompts_drawn, progress=0.5)
    assert torch.equal(restored.batch.behaviour_logprobs, second.batch.behaviour_logprobs)
    assert restored.draft.responses.texts == second.draft.responses.texts
    assert restored.age == 1.0
    other.ahead.restore(None)
    assert other.ahead.state(1) is None


@pytest.mark.parametrize("rollouts_ahead", [0, 1])
def test_a_finished_run_that_is_made_longer_is_the_run_that_was_begun_so_long(
    tmp_path, rollouts_ahead
):
    def run(folder, num_rollouts, checkpoint=None):
        folder.mkdir(exist_ok=True)
        module = lab_module(folder, num_rollouts=num_rollouts)
        module.collector.ahead.rollouts = rollouts_ahead
        saving = RolloutCheckpoint(every_rollouts=10, keep_last=1)
        trained = train(module, folder, saving, checkpoint=checkpoint)
        # When training is over nothing is kept.
        assert module.collector.ahead.state(num_rollouts) is None
        with (folder / "metrics.csv").open() as file:
            return trained, list(csv.DictReader(file))

    weights, rows = run(tmp_path / "whole", 4)
    run(tmp_path / "run", 2)
    end = checkpoint_path(tmp_path / "run" / "checkpoints", 2)
    again, later = run(tmp_path / "longer", 4, checkpoint=end)
    assert later == rows[2:]
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    ages = ["0.0", "1.0", "1.0", "1.0"] if rollouts_ahead else [None] * 4
    assert [row.get("rollout/age") for row in rows] == ages


def test_what_could_not_be_written_past_the_last_rollout_ends_no_run(tmp_path):
    def fails():
        raise ConnectionError("away")

    collector = ahead(tmp_path, num_rollouts=2).collector
    begun = Begun(finish=fails, stop=lambda: None)
    collector.engine.begin = lambda *_: begun
    collector.ahead.begin(collector.engine, 1, 0)
    collector.ahead.wait(2)
    assert collector.ahead.state(2) is None
    collector.ahead.begin(collector.engine, 0, 0)
    with pytest.raises(ConnectionError, match="away"):
        collector.ahead.wait(1)


def test_an_engine_that_cannot_answer_later_is_refused():
    class Now:
        def __init__(self, *, policy): ...

    assert check_ahead(1, partial(SharedPrefillSampler)) == 1
    assert check_ahead(0, partial(Now)) == 0
    with pytest.raises(ValueError, match=r"rollout.ahead=1 .*got Now. Set rollout=server"):
        check_ahead(1, partial(Now))
