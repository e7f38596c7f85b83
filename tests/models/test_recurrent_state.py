"""Linear attention: a prompt's state is computed once, repeated for its responses, and gradients flow back into it."""

from copy import deepcopy
from functools import wraps

import pytest
import torch
from model_fixtures import mixed_problems, noise_image, problem, tiny_policy
from scoring_cases import (
    all_plain_logprobs,
    assert_equal_gradients,
    case,
    gradients,
    in_true_float64,
    loss,
)
from transformers import Cache
from transformers.cache_utils import LinearAttentionLayer

from papo.models.recurrent_state import RecurrentLayer, prompt_cache
from papo.rollout import SharedPrefillSampler
from papo.types import derive_seeds

BACKENDS = ("padded", "twopass", "split", "merged")
every_backend = pytest.mark.parametrize("scoring", BACKENDS)


def hybrid(**settings):
    """Three layers of linear attention, then one of full attention."""
    return tiny_policy("qwen3_5", **{"num_layers": 4, "initializer_range": 0.1, **settings})


@pytest.fixture
def mixer(monkeypatch):
    """A layer of linear attention, in float64."""
    policy = in_true_float64(hybrid(), monkeypatch)
    layer = policy.adapter.language_model.layers[0].linear_attn
    # Else it forgets a token within a few others, and a wrong state is hardly seen.
    layer.A_log.data.fill_(-3.0)
    return layer


def read(mixer, hidden, cache=None, **kwargs):
    return mixer(hidden, cache=cache, **kwargs)


@pytest.mark.parametrize("num_tokens", [1, 2, 70])  # 1 is read as decoding is; 64 are a chunk
@pytest.mark.parametrize("prompt_length", [2, 67])  # the kernel of the convolution is 4 long
def test_a_state_repeated_for_responses_equals_whole_rows(mixer, prompt_length, num_tokens):
    generator = torch.Generator().manual_seed(0)
    prompts, responses = (
        torch.randn(*shape, 64, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((2, prompt_length), (6, num_tokens))
    )
    parameters = [prompts, responses, *mixer.parameters()]
    cache = Cache(layers=[RecurrentLayer()])
    of_prompts = read(mixer, prompts, cache)
    cache.batch_repeat_interleave(3)
    got = torch.cat([of_prompts.repeat_interleave(3, dim=0), read(mixer, responses, cache)], dim=1)
    expected = read(mixer, torch.cat([prompts.repeat_interleave(3, dim=0), responses], dim=1))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    found, wanted = (torch.autograd.grad(loss(each), parameters) for each in (got, expected))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11 * float(other.abs().max()))


def test_states_of_transformers_cut_the_graph(mixer):
    # The control of the test above, and why there is a layer of our own: states are copied in place.
    cache = Cache(layers=[LinearAttentionLayer()])
    prompt = torch.randn(1, 9, 64, dtype=torch.float64, requires_grad=True)
    read(mixer, prompt, cache)
    response = read(mixer, torch.randn(1, 5, 64, dtype=torch.float64), cache)
    with pytest.raises(RuntimeError, match="inplace operation"):
        response.sum().backward()
    assert not hasattr(LinearAttentionLayer, "batch_repeat_interleave")


@torch.no_grad()
def test_padding_in_front_leaves_a_state_alone_and_padding_behind_moves_it(mixer):
    prompt = torch.randn(1, 9, 64, dtype=torch.float64)
    pad = torch.randn(1, 5, 64, dtype=torch.float64)
    real, padding = torch.ones(1, 9, dtype=torch.bool), torch.zeros(1, 5, dtype=torch.bool)

    def state(hidden, mask=None):
        cache = Cache(layers=[RecurrentLayer()])
        read(mixer, hidden, cache, attention_mask=mask)
        return cache.layers[0].recurrent

    alone = state(prompt)
    in_front = state(torch.cat([pad, prompt], dim=1), torch.cat([padding, real], dim=1))
    behind = state(torch.cat([prompt, pad], dim=1), torch.cat([real, padding], dim=1))
    torch.testing.assert_close(in_front, alone, rtol=0, atol=1e-12)
    assert float((behind - alone).abs().max()) > 1e-2


@every_backend
def test_every_backend_equals_whole_rows_in_float64(scoring, monkeypatch):
    policy = in_true_float64(hybrid(scoring=scoring), monkeypatch)
    groups, ids, mask = case(policy)
    got = policy.score(groups, ids, mask)["image"].logprobs
    expected = all_plain_logprobs(policy, groups, ids, mask)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)
    assert_equal_gradients(
        gradients(policy, loss(got)),
        gradients(policy, loss(expected)),
        language=1e-12,
        vision=1e-7,
    )


@every_backend
def test_every_backend_equals_whole_rows_in_float32(scoring):
    policy = hybrid(scoring=scoring)
    groups, ids, mask = case(policy)
    got = policy.score(groups, ids, mask)["image"].logprobs
    expected = all_plain_logprobs(policy, groups, ids, mask)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    assert_equal_gradients(
        gradients(policy, loss(got)), gradients(policy, loss(expected)), language=1e-4, vision=1e-3
    )


@pytest.mark.parametrize("scoring", ["twopass", "split"])
def test_a_prompt_passes_linear_attention_once_for_all_its_responses(scoring, monkeypatch):
    policy = hybrid(scoring=scoring)
    groups, ids, mask = case(policy)
    lengths, num_read = [g.prompt_ids.shape[0] for g in groups], (mask.sum(dim=1) - 1).tolist()
    layer = policy.adapter.language_model.layers[0].linear_attn
    calls, plain = [], type(layer).forward

    @wraps(plain)
    def counted(self, hidden_states, **kwargs):
        if self.layer_idx == 0:
            calls.append(tuple(hidden_states.shape[:2]))
        return plain(self, hidden_states, **kwargs)

    monkeypatch.setattr(type(layer), "forward", counted)
    policy.score(groups, ids, mask)
    if scoring == "twopass":
        assert calls == [(4, max(lengths)), (12, max(num_read))]
    else:  # prompts of one length, then their responses; groups 0 and 3 have one
        together = {lengths[0]: (0, 3), lengths[1]: (1,), lengths[2]: (2,)}
        assert calls == [
            shape
            for length, of in sorted(together.items())
            for shape in (
                (len(of), length),
                (3 * len(of), max(num_read[3 * one + i] for one in of for i in range(3))),
            )
        ]


@torch.no_grad()
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_sampled_log_probabilities_are_the_scored_ones(top_p, monkeypatch):
    policy = in_true_float64(hybrid(), monkeypatch)
    groups = policy.encode([*mixed_problems(), problem(images=(noise_image(180, 30, 7),), id="n")])
    sampler = SharedPrefillSampler(
        policy=policy,
        temperature=1.0,
        top_p=top_p,
        top_k=None,
        max_response_tokens=12,
        max_rows=64,
    )
    sampler.look_every = 5
    written = sampler.sample(groups, 3, derive_seeds(1, len(groups)))
    scores = policy.score(groups, written.ids, written.mask)["image"].logprobs
    torch.testing.assert_close(written.logprobs, scores, rtol=0, atol=1e-12)
    expected = all_plain_logprobs(policy, groups, written.ids, written.mask)
    torch.testing.assert_close(written.logprobs, expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_row_that_was_read_on_cannot_forget():
    policy = hybrid()
    prefix = policy.prefill(policy.encode(mixed_problems())).share(2)
    assert not prefix.can_forget
    assert tiny_policy().prefill(tiny_policy().encode(mixed_problems())).share(2).can_forget
    with pytest.raises(AssertionError):
        prefix.forget(1, prefix.last_hidden)


@torch.no_grad()
def test_states_are_one_per_row_and_leave_with_it():
    policy = hybrid()
    prefix = policy.prefill(policy.encode(mixed_problems())).share(3)
    assert len(prefix.own.states) == 3
    assert len(prefix.prompts.keys) == 1
    assert {state.recurrent.shape for state in prefix.own.states} == {(9, 4, 16, 16)}
    kept = prefix.select(torch.tensor([0, 1, 6]))
    assert {state.conv.shape for state in kept.own.states} == {(3, 128, 4)}


def test_a_copied_policy_reads_packed_rows_with_its_own_weights():
    policy = hybrid()
    copied = deepcopy(policy)
    groups, ids, mask = case(policy)
    with torch.no_grad():
        before = copied.score(groups, ids, mask)["image"].logprobs
        for parameter in policy.adapter.language_model.layers[0].linear_attn.parameters():
            parameter.add_(0.1)
        assert torch.equal(copied.score(groups, ids, mask)["image"].logprobs, before)
        assert not torch.equal(policy.score(groups, ids, mask)["image"].logprobs, before)


def test_a_cache_holds_states_where_layers_are_linear_attention():
    config = hybrid().model.config.get_text_config()
    layers = prompt_cache(config).layers
    assert [type(each) is RecurrentLayer for each in layers] == [True, True, True, False]
