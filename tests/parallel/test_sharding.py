"""Weights in shards change nothing: the same prompts, responses, metrics and weights as one process."""

import re

import pytest
from cases import BY_TOKENS, OLD_MASKED_AND_REFERENCE, TINY, built, trained
from pool import on_ranks, outcomes
from test_replicas import largest_difference, same_metrics, trained_on

pytestmark = pytest.mark.dist


LORA = {"lora": {"language": {"r": 2, "alpha": 4, "targets": ["q_proj"]}, "vision": None}}
SHORT = {"num_rollouts": 1, "prompts_per_rollout": 4, "prompts_per_minibatch": 4}

CASES = {
    "plain": {"tiny": TINY, "num_rollouts": 2},
    "passes cut by tokens, some without a picture, old masked view and reference": {
        "tiny": TINY,
        "text_only": (0, 3, 5, 6),
        **BY_TOKENS,
        **OLD_MASKED_AND_REFERENCE,
    },
    "gradient checkpointing": {"tiny": {**TINY, "gradient_checkpointing": True}},
    "none with a picture": {"tiny": TINY, "text_only": range(8)},
    "adapters, whose absence is the reference": {
        "tiny": {**TINY, **LORA},
        "text_only": (1,),
        "beta": 0.05,
    },
    "frozen tower": {"tiny": {**TINY, "freeze_vision": True}, "text_only": (1,), "beta": 0.05},
    "qwen3_vl": {"tiny": {**TINY, "family": "qwen3_vl"}, "text_only": (0, 3)},
    "qwen3_5": {"tiny": {**TINY, "family": "qwen3_5", "num_layers": 4}, "text_only": (0, 3)},
    "internvl": {"tiny": {**TINY, "family": "internvl"}, "text_only": (0, 3)},
    "smolvlm": {"tiny": {**TINY, "family": "smolvlm"}, "text_only": (0, 3)},
    "gemma3": {"tiny": {**TINY, "family": "gemma3", "scoring": "twopass"}, "text_only": (0, 3)},
    "padded": {"tiny": {**TINY, "scoring": "padded"}, "text_only": (2,)},
    "twopass": {"tiny": {**TINY, "scoring": "twopass"}, "text_only": (2,)},
}


def sharded(ranks, settings):
    return trained(ranks, shards={}, **settings)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_with_half_the_weights_each_do_the_run_of_one(case):
    from papo.parallel import Ranks

    settings = {**SHORT, **CASES[case]}
    alone = trained(Ranks(), **settings)
    for mine in on_ranks(sharded, settings):
        assert mine["texts"] == alone["texts"]
        assert mine["rewards"] == alone["rewards"]
        assert largest_difference(mine["weights"], alone["weights"]) <= 1e-12
        assert same_metrics(mine["metrics"], alone["metrics"]) <= 1e-12


def test_shards_of_a_tower_that_pools_in_float32_do_what_replicas_do():
    """Gemma 4 rounds what its tower saw to float32, so the pictures that share a pass change the seventh digit of a
    gradient: the run of one process, whose passes hold all four, is no measure of shards."""
    tiny = {**TINY, "family": "gemma4", "scoring": "twopass"}
    settings = {**SHORT, "tiny": tiny, "text_only": (0, 3)}
    replicas, shards = (on_ranks(train, settings) for train in (trained_on, sharded))
    for whole, mine in zip(replicas, shards, strict=True):
        assert mine["texts"] == whole["texts"]
        assert mine["rewards"] == whole["rewards"]
        assert largest_difference(mine["weights"], whole["weights"]) <= 1e-12
        assert same_metrics(mine["metrics"], whole["metrics"]) <= 1e-12


def test_a_rank_with_fewer_prompts_takes_part_in_the_passes_of_the_others():
    from papo.parallel import Ranks

    settings = {**SHORT, "tiny": TINY, "text_only": (1,), **OLD_MASKED_AND_REFERENCE}
    alone = trained(Ranks(), **settings)
    together = on_ranks(sharded, settings, size=3)
    # Of four prompts, each a pass of its own.
    assert sorted(mine["own_groups"] for mine in together) == [1, 1, 2]
    for mine in together:
        assert mine["texts"] == alone["texts"]
        assert largest_difference(mine["weights"], alone["weights"]) <= 1e-12
        assert same_metrics(mine["metrics"], alone["metrics"]) <= 1e-12


def test_four_ranks_with_two_copies_of_the_weights_do_the_run_of_one():
    from papo.parallel import Ranks

    settings = {**SHORT, "tiny": TINY, "text_only": (1,)}
    alone = trained(Ranks(), **settings)
    for mine in on_ranks(trained_with, {"shard_size": 2}, settings, size=4):
        assert mine["texts"] == alone["texts"]
        assert largest_difference(mine["weights"], alone["weights"]) <= 1e-12


def trained_with(ranks, shards, settings):
    return trained(ranks, shards=shards, **settings)


def share_and_calls(ranks, family):
    """Counts what a rank holds, and the collectives while it samples with all weights."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    from papo.parallel import local_tensor

    module = built(ranks, "/nowhere", tiny={**TINY, "family": family}, text_only=(1,), shards={})
    total = sum(parameter.numel() for parameter in module.policy_module.policy.parameters())
    module.configure_model()
    policy, collector = module.policy_module.policy, module.collector
    here = sum(local_tensor(parameter).numel() for parameter in policy.parameters())
    calls = []

    class Counted(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            if "c10d" in str(function) or "_c10d_functional" in str(function):
                calls.append(str(function))
            return function(*arguments, **(keywords or {}))

    # Ranks write different numbers of tokens.
    collector.engine.max_response_tokens = 1 + 8 * ranks.rank
    groups = policy.encode([collector.prompts.take(index, 1)[0] for index in (0, 1)])
    with collector.sharding.whole(policy), Counted():
        responses = collector.engine.sample(groups, 2, [1, 2])
    inside = list(calls)
    with Counted(), torch.no_grad():
        policy.score(groups, responses.ids, responses.mask)
    return here / total, inside, len(calls), responses.mask.shape[1]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_ranks_hold_half_and_sample_without_one_another(family):
    answers = on_ranks(share_and_calls, family)
    assert sum(share for share, _, _, _ in answers) == pytest.approx(1.0)
    for share, inside, scoring, _ in answers:
        assert share == pytest.approx(0.5, abs=0.01)
        assert inside == []
        assert scoring > 0
    assert [longest for _, _, _, longest in answers] == [1, 9]


def half_precision(ranks, family):
    import torch

    module = built(
        ranks,
        "/nowhere",
        dtype="float32",
        tiny={**TINY, "family": family, "freeze_vision": family == "qwen3_vl"},
        shards={"half_precision": True},
        beta=0.05,
    )
    module.configure_model()
    policy, collector = module.policy_module.policy, module.collector
    groups = policy.encode([collector.prompts.take(index, 1)[0] for index in (0, 1)])
    with collector.sharding.whole(policy):
        drawn = collector.engine.sample(groups, 2, [1, 2])
        with torch.no_grad():
            whole = policy.score(groups, drawn.ids, drawn.mask)
    scores = policy.score(groups, drawn.ids, drawn.mask)
    scores["image"].logprobs.sum().backward()
    reference = collector.reference
    theirs = reference.score(groups, drawn.ids, drawn.mask)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    return {
        "same as whole": torch.equal(whole["image"].logprobs, scores["image"].logprobs.detach()),
        "sampler": (drawn.logprobs - whole["image"].logprobs).abs().max().item(),
        "reference": (theirs - whole["image"].logprobs).abs().max().item(),
        "weights": {str(parameter.dtype) for parameter in trained},
        "gradients": {str(parameter.grad.dtype) for parameter in trained},
        "reference weights": {str(p.dtype) for p in reference.policy.parameters()},
    }


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_half_precision_is_of_passes_and_of_the_reference_alone(family):
    for answer in on_ranks(half_precision, family):
        assert answer["same as whole"]
        assert answer["sampler"] < 0.1
        assert answer["reference"] == 0.0
        assert answer["weights"] == answer["gradients"] == {"torch.float32"}
        assert answer["reference weights"] == {"torch.bfloat16"}


def with_the_mean(ranks, settings):
    """A negative control: gradients averaged over ranks, as FSDP does of itself."""
    from torch.distributed.fsdp import FSDPModule

    FSDPModule.set_gradient_divide_factor = lambda self, factor: None
    return trained(ranks, shards={}, **settings)


def test_averaged_gradients_would_be_seen():
    from papo.parallel import Ranks

    # Steps of AdamW hide a factor; the norm that is clipped does not.
    settings = {**SHORT, "tiny": TINY}
    alone = trained(Ranks(), **settings)["metrics"]["update/grad_norm"]
    for mine in on_ranks(with_the_mean, settings):
        assert mine["metrics"]["update/grad_norm"] == pytest.approx(alone / 2)


def own_pass(ranks, folder, looks):
    """Rank 0 scores a prompt without a picture while rank 1 scores one with a picture."""
    import torch
    from model_fixtures import problem

    from papo.models.reader import PromptReader
    from papo.parallel import full_tensor

    if not looks:
        # A negative control: a pass without a picture leaves the tower out.
        PromptReader._nothing_seen = lambda self: None
    module = built(ranks, folder, tiny=TINY, shards={})
    module.configure_model()
    policy = module.policy_module.policy
    problems = [problem("no picture", images=(), id="text"), problem(id="picture")]
    groups = policy.encode([problems[index] for index in ranks.share(2)])
    ids = torch.tensor([[7, 8, 9]] * len(groups))
    mask = torch.ones_like(ids, dtype=torch.bool)
    scores = policy.score(groups, ids, mask)
    scores["image"].logprobs.sum().backward()
    return {
        name: full_tensor(parameter.grad).numpy().copy()
        for name, parameter in policy.named_parameters()
    }


def test_a_pass_without_a_picture_looks_at_one_that_changes_nothing(tmp_path):
    from papo.parallel import Ranks

    alone = own_pass(Ranks(), tmp_path, True)
    for mine in on_ranks(own_pass, tmp_path, True):
        assert largest_difference(mine, alone) <= 1e-12
    ends = outcomes(own_pass, tmp_path, False, timeout=10)
    assert not any(
        kind == "returned" and largest_difference(mine, alone) <= 1e-12 for kind, mine in ends
    )


def fingerprints_of_shards(ranks):
    from papo.training.base_weights import fingerprint, trained_parameters

    module = built(ranks, "/nowhere", tiny=TINY, shards={})
    before = fingerprint(trained_parameters(module.policy_module.policy))
    module.configure_model()
    try:
        after = fingerprint(trained_parameters(module.policy_module.policy))
    except AssertionError:
        after = None
    return before, after


def test_a_fingerprint_is_of_whole_weights_alone():
    (first, refused), (second, refused_too) = on_ranks(fingerprints_of_shards)
    assert first == second
    assert refused is refused_too is None


def with_other_weights(ranks, folder, shards, moment):
    """One rank's weights differ, from the start or after the first rollout."""
    from cases import at_rollout
    from lab_module import train

    from papo.parallel import local_tensor

    module = built(ranks, folder, tiny=TINY, shards=shards, **{**SHORT, "num_rollouts": 2})
    policy = module.policy_module.policy

    def disturb():
        if ranks.rank == ranks.size - 1:
            local_tensor(policy.model.lm_head.weight.data)[0, 0] += 1e-9

    if moment == "start":
        disturb()
    train(module, folder, at_rollout(1, disturb))


@pytest.mark.parametrize(
    ("shards", "size", "moment"),
    [({}, 2, "start"), ({"shard_size": 2}, 4, "rollout")],
    ids=["before they are cut", "between two copies"],
)
def test_ranks_that_train_two_policies_are_found_out(shards, size, moment, tmp_path):
    for kind, text in outcomes(with_other_weights, tmp_path, shards, moment, size=size):
        assert kind == "raised"
        assert "all ranks have the same" in text


def broken_on_one_rank(ranks, folder):
    """The policy of rank 1 alone gives NaN, in the first of its passes."""
    import torch
    from lab_module import train

    module = built(ranks, folder, tiny=TINY, shards={}, **SHORT)
    score, calls = module._score, []

    def broken(part):
        calls.append(part)
        scores = score(part)
        if ranks.rank == 1 and len(calls) == 1:
            scores["image"].logprobs.data[0, 0] = torch.nan
        return scores

    module._score = broken
    train(module, folder)


def test_a_non_finite_loss_on_one_rank_stops_all_after_the_minibatch(tmp_path):
    # Both say so, and one hears of the other first.
    for _, text in outcomes(broken_on_one_rank, tmp_path):
        assert re.match(r"(PeerFailed: rank [01]: )?NonFiniteLoss: ", text)
        assert "rollout_000001_rank_1.pt" in text
    assert [path.name for path in (tmp_path / "non_finite").iterdir()] == [
        "rollout_000001_rank_1.pt"
    ]


def out_of_memory_once(ranks, folder, fails):
    """A pass of rank 1 over more than one prompt does not fit."""
    import torch
    from lab_module import train

    module = built(ranks, folder, tiny=TINY, shards={}, **{**SHORT, "prompts_per_microbatch": 2})
    score, sizes = module._score, []

    def tight(part):
        sizes.append(len(part.groups))
        if fails and ranks.rank == 1 and len(part.groups) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return score(part)

    module._score = tight
    train(module, folder)
    return sizes, module.last_step.metrics["update/microbatch_halvings"]


def test_a_pass_that_does_not_fit_ends_all_and_the_next_start_makes_smaller_ones(tmp_path):
    peer, failed = outcomes(out_of_memory_once, tmp_path, True)
    assert failed[1].startswith("PassDoesNotFit: out of memory in a pass over 2 prompts")
    assert peer[1].startswith("PeerFailed: rank 1: PassDoesNotFit") or peer[0] == "ended"
    assert (tmp_path / "microbatch_halvings.json").read_text() == '{"halvings": 1}'
    for sizes, halvings in on_ranks(out_of_memory_once, tmp_path, True):
        assert set(sizes) == {1}
        assert halvings == 1
