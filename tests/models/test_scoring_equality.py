"""Every backend gives the numbers of a plain forward pass: log-probabilities and gradients."""

from dataclasses import replace

import pytest
import torch
from model_fixtures import tiny_policy
from scoring_cases import (
    all_plain_logprobs,
    case,
    gradients,
    loss,
)

BACKENDS = ("padded", "twopass", "split", "merged")


def test_checkpointing_really_recomputes_the_layers(family):
    policy = tiny_policy(family, gradient_checkpointing=True).train()
    groups, ids, mask = case(policy)
    calls = []
    layer = policy.model.model.language_model.layers[-1].self_attn
    layer.register_forward_hook(lambda *args: calls.append(1))
    value = loss(policy.score(groups, ids, mask)["image"].logprobs)
    assert len(calls) == 1
    value.backward()
    assert len(calls) == 2


@pytest.mark.parametrize("scoring", ["twopass", "split", "merged"])
def test_bfloat16_autocast_stays_within_its_rounding(family, scoring):
    # bfloat16 keeps 8 bits: two exact orders of summation differ by about as much as either differs
    # from float32, which is 0.1 nat for these wide random weights.
    results = {}
    for name in (scoring, "padded", "float32"):
        policy = tiny_policy(
            family, scoring="padded" if name == "float32" else name, initializer_range=0.05
        )
        groups, ids, mask = case(policy)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=name != "float32"):
            scores = policy.score(groups, ids, mask)["image"].logprobs
        assert scores.dtype == torch.float32
        results[name] = scores.detach()
        assert all(bool(torch.isfinite(g).all()) for g in gradients(policy, loss(scores)).values())
    rounding = float((results["padded"] - results["float32"]).abs().max())
    assert 0 < rounding < 0.1
    assert float((results[scoring] - results["float32"]).abs().max()) < 2 * rounding


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_other_calls_use_the_attention_that_was_asked_for(family, attention):
    policy = tiny_policy(family)
    policy.model.set_attn_implementation(attention)
    groups, ids, mask = case(policy)
    with torch.no_grad():
        expected = all_plain_logprobs(policy, groups, ids, mask)
        for scoring in BACKENDS:
            policy.choose_backend.scoring = scoring
            got = policy.score(groups, ids, mask)["image"].logprobs
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    prompt = groups[1].prompt_ids[None]
    generated = policy.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=False
    )
    assert generated.shape[1] > prompt.shape[1]
    assert policy.model.config.get_text_config()._attn_implementation == attention


def deviation_when(policy, monkeypatch, break_it):
    """How far split log-probs are from the plain ones after `break_it(monkeypatch, groups)`."""
    groups, ids, mask = case(policy)
    with torch.no_grad():
        expected = all_plain_logprobs(policy, groups, ids, mask)
        groups = break_it(monkeypatch, groups)
        got = policy.score(groups, ids, mask)["image"].logprobs
    return float((got - expected).abs().max())


def plain_causal_mask(monkeypatch, groups):
    from papo.models.families import QwenVLAdapter

    monkeypatch.setattr(
        QwenVLAdapter,
        "backbone",
        lambda self, embeddings, positions, mask, **kwargs: (
            self.model.model.language_model(
                inputs_embeds=embeddings,
                position_ids=positions,
                **(
                    {
                        "visual_pos_masks": kwargs["image_slots"],
                        "deepstack_visual_embeds": list(kwargs["features"].deepstack),
                    }
                    if kwargs["features"].deepstack
                    else {}
                ),
            ).last_hidden_state
        ),
    )
    return groups


def positions_off_by_one(monkeypatch, groups):
    return tuple(replace(g, next_position=g.next_position + 1) for g in groups)


def one_dimensional_positions(monkeypatch, groups):
    return tuple(
        replace(
            g,
            position_ids=torch.arange(g.prompt_ids.shape[0]).expand(3, -1),
            next_position=g.prompt_ids.shape[0],
        )
        for g in groups
    )


def no_deepstack(monkeypatch, groups):
    from papo.models.families import QwenVLAdapter

    correct = QwenVLAdapter.vision_features
    monkeypatch.setattr(
        QwenVLAdapter,
        "vision_features",
        lambda self, *args: replace(correct(self, *args), deepstack=()),
    )
    return groups


def other_groups_prompt(monkeypatch, groups):
    return (groups[3], *groups[1:3], groups[0])


@pytest.mark.parametrize(
    "break_it",
    [
        plain_causal_mask,
        positions_off_by_one,
        one_dimensional_positions,
        no_deepstack,
        other_groups_prompt,
    ],
)
def test_a_wrong_pass_would_be_noticed(family, break_it, monkeypatch):
    if break_it is no_deepstack and family != "qwen3_vl":
        pytest.skip("this family has no deepstack")
    assert deviation_when(tiny_policy(family), monkeypatch, break_it) > 1e-2


def test_the_controls_deviate_because_of_what_they_break(family, monkeypatch):
    assert deviation_when(tiny_policy(family), monkeypatch, lambda _, groups: groups) < 1e-5
