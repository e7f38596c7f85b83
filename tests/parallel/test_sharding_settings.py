"""What can be in shards, and how many passes each rank makes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def checked(**changed):
    from papo.training import check_strategy

    plain = {"strategy": "shards", "shard_size": None, "precision": "bf16-mixed", "processes": 8}
    return check_strategy(**{**plain, **changed})


def test_how_many_processes_share_a_copy():
    assert checked() == 8
    assert checked(shard_size=2) == 2
    assert checked(processes=1) == 1
    assert checked(strategy="replicas", precision="16-mixed") == 1
    assert checked(strategy=None) == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"strategy": "ddp"}, "trainer.strategy='ddp'"),
        ({"strategy": "replicas", "shard_size": 2}, "Set trainer=sharded"),
        ({"shard_size": 3}, "trainer.shard_size=3 for 8 processes"),
        ({"shard_size": 1}, "trainer=replicas"),
        ({"shard_size": True}, "trainer.shard_size=True"),
        ({"precision": "bf16-true"}, "trainer.precision=bf16-true"),
        ({"precision": "16-mixed"}, "Set 32-true or bf16-mixed"),
    ],
)
def test_an_impossible_setting_is_refused_with_its_key(changed, said):
    with pytest.raises(ValueError, match=said):
        checked(**changed)


@given(
    lengths=st.lists(
        st.lists(st.integers(1, 40), min_size=2, max_size=2), min_size=12, max_size=12
    ),
    size=st.sampled_from([2, 3, 4]),
    tokens=st.integers(1, 200),
)
@settings(max_examples=30, deadline=None)
def test_every_rank_knows_how_many_passes_the_others_make(lengths, size, tokens):
    from papo.parallel import deal
    from papo.training.microbatches import MicrobatchCutter, shared_prefix_tokens

    cutter = MicrobatchCutter(prompts=None, tokens=tokens, count_tokens=shared_prefix_tokens)
    prompts = [5 + place for place in range(12)]
    owners = deal(
        [prompt + sum(pair) for prompt, pair in zip(prompts, lengths, strict=True)],
        ranks=size,
        groups_per_minibatch=6,
        most_per_rank=None,
    )
    told = cutter.num_passes(prompts, [n for pair in lengths for n in pair], owners, size)
    for rank in range(size):
        mine = [place for place, owner in enumerate(owners) if owner == rank]
        own = [n for place in mine for n in lengths[place]]
        assert told[rank] == len(cutter.bounds([prompts[place] for place in mine], own)) > 0


def test_what_stays_is_a_share_and_sampling_needs_all_weights():
    from functools import partial

    import torch
    from model_fixtures import tiny_policy

    from papo.training import estimate_memory
    from papo.training.activations import PassSizes

    policy = tiny_policy()
    estimate = partial(
        estimate_memory,
        model=policy.model,
        has_reference=True,
        make_optimizer=torch.optim.AdamW,
        sizes=PassSizes(
            tokens=9,
            prompt_tokens=5,
            rows=2,
            response_tokens=4,
            patches=4,
            views=1,
            row_tokens=7,
            cached_tokens=9,
            sampled_rows=2,
        ),
        half_precision=True,
        checkpointing=False,
        head_chunk_size=16,
        on_gpu=False,
    )
    one, four = estimate(), estimate(shards=4)
    numbers = sum(parameter.numel() for parameter in policy.parameters())
    assert (one.gathered, four.gathered) == (0, 2 * numbers)
    assert four.weights == one.weights // 4
    assert four.reference == 2 * numbers // 4 < one.reference
    assert four.gradient == one.gradient // 4
    assert four.optimizer == one.optimizer // 4
    assert "gathered" in four.summary()
    assert "gathered" not in one.summary()
